"""The paper's table on a few images: whole jobs, kept rows, the file and the figure."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from atmc_core.determinism import compute_repeatably
from atmc_core.job import run as job
from benchmarks import paper, table
from benchmarks.datasets import SETS

ROW = {
    "method",
    "bits",
    "commit",
    "density",
    "nominal_ratio",
    "file_ratio",
    "clean_accuracy",
    "pgd_accuracy",
    "seconds",
}


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What all calls here say; the images are noise, the results go to the temporary folder."""
    generator = np.random.default_rng(0)
    data: dict[str, Any] = {
        f"{kind}_{split}": values
        for split in ("train", "test")
        for kind, values in (
            ("x", generator.integers(0, 256, (32, 28, 28, 1), dtype=np.uint8)),
            ("y", np.arange(32) % 10),
        )
    }
    np.savez(tmp_path / "mnist.npz", **data)
    monkeypatch.setattr(paper, "unpacked", lambda name: tmp_path / f"{name}.npz")
    monkeypatch.setattr(table, "RESULTS", tmp_path / "results")
    threads, repeatable = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    few = "--steps 1 --epochs 1 --finish-epochs 1 --dense-epochs 1 --batch-size 16 --threads 1"
    strong = "--strong-steps 2 --strong-restarts 2 --worst-images 16"
    yield [*few.split(), *strong.split(), "--name", "few", "--work", str(tmp_path / "work")]
    torch.set_num_threads(threads)
    compute_repeatably(repeatable)


def _table(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(sys, "argv", ["paper", *arguments])
    paper.main()
    found: dict[str, Any] = json.loads((table.RESULTS / "mnist-few.json").read_text())
    return found


def test_rows_of_every_kind_of_size_have_names_of_their_own() -> None:
    asked = argparse.Namespace(
        methods=["da", "ap", "atmc"],
        densities=[0.01],
        nominal_ratios=[0.01],
        max_bytes=[13_000],
        bits=[4],
    )
    names = [system.name for system in paper.systems(asked)]
    assert names == [
        "da-1.0-32",
        "ap-0.01-32",
        "atmc-0.01-4",
        "atmc-nominal-0.01-4",
        "atmc-bytes-13000-4",
    ]


@pytest.mark.usefixtures("forked_evaluation")
def test_rows_are_whole_jobs_and_are_kept(
    asked: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["--methods", "da", "atmc", "--densities", "--nominal-ratios", "0.01", "--bits", "3"]
    first = _table([*asked, *rows], monkeypatch)
    assert json.loads(capsys.readouterr().out) == first
    assert [(row["method"], row["bits"]) for row in first["rows"]] == [("da", 32), ("atmc", 3)]
    for row in first["rows"]:
        assert row.keys() >= ROW
        assert row["pgd_accuracy"] <= row["paper_pgd_accuracy"] <= row["clean_accuracy"]
        worst = row["worst_case"]
        attacked = [worst[f"{name}_accuracy"] for name in ("pgd", "smooth", "autoattack")]
        assert worst["worst_accuracy"] <= min(attacked)
        assert max(attacked) <= worst["clean_accuracy"]
        assert worst["images"] == 16
    assert 0.0099 < first["rows"][1]["nominal_ratio"] <= 0.01
    assert first.keys() >= {"settings", "hardware", "torch"}
    assert "PGD-2 x 2" in (table.RESULTS / "mnist-few.svg").read_text()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(job, "run", refuse)
    assert _table([*asked, *rows], monkeypatch) == first


@pytest.mark.usefixtures("forked_evaluation")
def test_a_row_of_training_for_proof_says_how_much_is_proven(
    asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = ["--architecture", "clipped_cnn", "--epsilon", "1e-5"]
    proof = ["--training", '{"loss": "ibp"}', "--methods", "da", "--densities"]
    (row,) = _table([*asked, *network, *proof], monkeypatch)["rows"]
    # The radius is next to nothing, so that bounds prove nearly what is classified correctly.
    assert row["pgd_accuracy"] - 1 / 16 <= row["proven_accuracy"] <= row["pgd_accuracy"]


def test_a_network_begins_with_the_data_set_s_number_of_classes(tmp_path: Path) -> None:
    asked = {"dataset": "cifar100", "architecture": "mobilenet_v2", "name": "few", "seed": 0}
    arguments = argparse.Namespace(**asked, work=tmp_path)
    table.work_folder(arguments).mkdir()
    weights = safetensors.torch.load_file(paper.fresh_network(arguments))
    assert weights["linear.weight"].shape == (100, 1280)
    assert paper.SETTINGS.keys() == SETS.keys()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--epsilon", "1/0"], "a fraction such as 8/255"),
        (["--epsilon", "0"], "threat.epsilon"),
        (["--strong-steps", "0"], "a whole number of at least 1 is needed"),
        (["--training", "[]"], "a JSON object is needed"),
        (["--robust", "nowhere.safetensors"], "there is no file nowhere.safetensors"),
        (["--draw"], "run it without --draw first"),
    ],
)
def test_a_mistake_is_said_in_a_sentence(
    arguments: list[str],
    said: str,
    asked: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        _table([*asked, *arguments], monkeypatch)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
