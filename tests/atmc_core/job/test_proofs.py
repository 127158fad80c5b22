"""A job trains for proof, its report says what is proven, and whoever reads it gets the same."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

from atmc_core import artifact, reproduce
from atmc_core.certification import certify
from atmc_core.data import load_npz
from atmc_core.errors import InvalidInput
from atmc_core.networks.upload import ModelInput
from atmc_core.report.page import render
from atmc_core.report.schema import schema
from tests.atmc_core.job.whole_jobs import Killed, read_report, run_job

SPEC: dict[str, Any] = {
    "method": "al0",
    "target": {"density": 0.2, "bits": 4},
    "threat": {"norm": "linf", "epsilon": 0.04, "steps": 2},
    "training": {
        "loss": "ibp",
        "robust_epochs": 20,
        "compression_epochs": 6,
        "finish_epochs": 3,
        "batch_size": 64,
    },
    "evaluation": {
        "speed": False,
        "attacks": ["pgd", "pgd_smooth"],
        "certify": "crown",
        "max_images": 16,
        "pgd_steps": 4,
        "curve_images": 4,
        "curve_steps": 2,
        "batch_size": 8,
    },
    "accept": {"proven_accuracy": 0.2},
}


@pytest.fixture(scope="module")
def finished(
    digits_model: ModelInput, small_digits_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("proofs")
    headline, _ = run_job(SPEC, digits_model, small_digits_path, folder)
    return headline, folder


def test_what_is_proven_stands_between_nothing_and_what_attacks_leave(
    finished: tuple[dict[str, Any], Path],
) -> None:
    headline, folder = finished
    report = read_report(folder)
    jsonschema.validate(report, schema())
    before, after = report["before"], report["after"]
    for side in (before, after):
        proven = side["proven"]
        assert proven["method"] == "crown"
        assert proven["reason"] == ""
        assert sum(proven["bounds"].values()) == proven["share"]["correct"]
        assert proven["share"]["correct"] <= proven["tried"] == side["robust"]["correct"]
        counts = [point["correct"] for point in proven["curve"]]
        assert counts == sorted(counts, reverse=True)
        assert counts[-1] == 0
        attacked = {point["epsilon"]: point["correct"] for point in side["curve"]}
        for point in proven["curve"]:
            assert point["correct"] <= attacked.get(point["epsilon"], 0)
    assert headline["proven_accuracy_after"] == after["proven"]["share"]["accuracy"]
    # Training for proof is for this.
    assert before["proven"]["bounds"]["ibp"] == 0
    assert after["proven"]["bounds"]["ibp"] >= 4
    (threshold,) = report["acceptance"]["thresholds"]
    assert threshold["name"] == "proven_accuracy"
    assert threshold["figure"] == headline["proven_accuracy_after"]


def test_the_file_proves_what_its_report_says(
    finished: tuple[dict[str, Any], Path], small_digits_path: Path
) -> None:
    _, folder = finished
    report = read_report(folder)
    test = load_npz(small_digits_path, validation_fraction=0.1, seed=0).test
    images, labels = test.batch(torch.tensor(report["evaluation"]["indices"]))
    classifier = artifact.load(folder / "results" / "model.atmc").classifier()
    found = certify(classifier, images, labels, 0.04)
    assert int(found.proven.sum()) == report["after"]["proven"]["share"]["correct"]


def test_the_page_and_the_figures_again(
    finished: tuple[dict[str, Any], Path], small_digits_path: Path
) -> None:
    _, folder = finished
    report = read_report(folder)
    page = render(report)
    assert "Proven accuracy" in page
    assert "proven, whatever the attack" in page
    first = report["after"]["proven"]["curve"][0]["accuracy"]
    assert f"compressed, proven: {100 * first:.0f} % at" in page, "for who hears the page"
    found = reproduce.repeat(
        report, folder / "results" / "model.atmc", small_digits_path, torch.device("cpu")
    )
    assert found["differences"] == []
    assert "proven" in reproduce.table(found)
    report["after"]["proven"]["share"]["correct"] -= 1
    (other,) = reproduce.differences(report["after"], found["figures"])
    assert other["figure"] == "proven"


def test_a_proof_that_was_cut_off_goes_on(
    finished: tuple[dict[str, Any], Path],
    digits_model: ModelInput,
    small_digits_path: Path,
    tmp_path: Path,
) -> None:
    few = {"max_images": 8, "curve_images": 2, "batch_size": 4}
    spec = {
        "method": "evaluate",
        "threat": {"norm": "linf", "epsilon": 0.02},
        "evaluation": SPEC["evaluation"] | few,
    }
    run_job(spec, digits_model, small_digits_path, tmp_path / "whole")
    with pytest.raises(Killed):
        # Two batches clean, two and two under attack, the curve of 18 points, then the proofs.
        run_job(spec, digits_model, small_digits_path, tmp_path / "cut", kill=26)
    _, events = run_job(spec, digits_model, small_digits_path, tmp_path / "cut")
    assert [event for event in events if event["type"] == "resumed"]
    whole, cut = (read_report(tmp_path / name)["before"]["proven"] for name in ("whole", "cut"))
    assert whole | {"seconds": 0} == cut | {"seconds": 0}
    assert whole["share"]["correct"] > 0


@pytest.mark.parametrize(("norm", "level"), [("l2", "standard"), ("linf", "quick")])
def test_nothing_is_proven_unasked_where_it_cannot_or_need_not_be(
    norm: str,
    level: str,
    digits_model: ModelInput,
    small_digits_path: Path,
    tmp_path: Path,
) -> None:
    spec: dict[str, Any] = {
        "method": "evaluate",
        "threat": {"norm": norm, "epsilon": 0.02},
        "evaluation": {**SPEC["evaluation"], "level": level},
    }
    del spec["evaluation"]["certify"]
    headline, _ = run_job(spec, digits_model, small_digits_path, tmp_path)
    proven = read_report(tmp_path)["before"]["proven"]
    assert headline["proven_accuracy_before"] is None
    if level == "quick":
        assert proven is None
    else:
        assert proven["share"] is None
        assert "L-infinity" in proven["reason"]
        assert proven["reason"] in render(read_report(tmp_path))


def test_a_threshold_on_a_proof_that_nobody_asks_for_is_refused(
    digits_model: ModelInput, small_digits_path: Path, tmp_path: Path
) -> None:
    spec = SPEC | {"evaluation": {"attacks": ["fgsm"], "max_images": 8}}
    with pytest.raises(InvalidInput, match=r"set evaluation\.certify") as refused:
        run_job(spec, digits_model, small_digits_path, tmp_path)
    assert refused.value.param == "accept.proven_accuracy"


def test_a_proof_in_another_norm_is_refused(
    digits_model: ModelInput, small_digits_path: Path, tmp_path: Path
) -> None:
    spec = {
        "method": "evaluate",
        "threat": {"norm": "l2", "epsilon": 0.02},
        "evaluation": SPEC["evaluation"],
    }
    with pytest.raises(InvalidInput, match="linf") as refused:
        run_job(spec, digits_model, small_digits_path, tmp_path)
    assert refused.value.param == "evaluation.certify"
