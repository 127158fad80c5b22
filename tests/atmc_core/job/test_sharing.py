"""What stages of one job made, another takes, and comes to the same result."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

from atmc_core.job.products import Found
from atmc_core.networks.upload import ModelInput
from atmc_core.report import schema
from tests.atmc_core.job.whole_jobs import EVALUATION, THREAT, Killed, read_report, run_job

SPEC: dict[str, Any] = {
    "method": "al0",
    "target": {"density": 0.2, "bits": 4},
    "threat": THREAT | {"steps": 1},
    "training": {"robust_epochs": 1, "compression_epochs": 1, "finish_epochs": 1},
    "evaluation": EVALUATION
    | {"level": "quick", "max_images": 20, "curve_images": 5, "pgd_steps": 2},
}
DENSE = ["evaluating_upload", "robust_training", "evaluating_dense"]
ALL = [*DENSE, "compressing", "finishing"]


class Shelf:
    """A shelf in a folder, of a job whose name is given."""

    def __init__(self, folder: Path, job: str, model: str = "m") -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.job_id = folder, job
        self.files = {"model": model, "dataset": "d"}
        self.made: list[str] = []
        self.refused: list[str] = []

    def take(
        self, key: str, stage: str, *, told: Callable[[str], None], patient: bool
    ) -> Found | None:
        path = self.folder / key
        return Found(path, "job_before", 3.0) if path.exists() else None

    def refuse(self, key: str, stage: str) -> None:
        self.refused.append(stage)

    def put(self, key: str, stage: str, seconds: float, write: Callable[[Path], None]) -> None:
        assert seconds > 0
        write(self.folder / key)
        self.made.append(stage)


@pytest.fixture(scope="module")
def first(
    digits_model: ModelInput, small_digits_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a job with all its products in ``shelf``."""
    torch.use_deterministic_algorithms(True)
    folder = tmp_path_factory.mktemp("first")
    shelf = Shelf(folder / "shelf", "first")
    run_job(SPEC, digits_model, small_digits_path, folder, shelf=shelf)
    assert shelf.made == ALL
    return folder


def test_another_target_takes_the_dense_network_and_another_split_trains_nothing(
    first: Path, digits_model: ModelInput, small_digits_path: Path, tmp_path: Path
) -> None:
    smaller = Shelf(first / "shelf", "smaller")
    target = SPEC | {"target": {"density": 0.1, "bits": 4}}
    _, events = run_job(target, digits_model, small_digits_path, tmp_path / "a", shelf=smaller)
    assert smaller.made == ["compressing", "finishing"]
    reused = [each for each in events if each.get("status") == "reused"]
    assert [each["stage"] for each in reused] == DENSE
    assert all(each["job_id"] == "job_before" for each in reused)
    report = read_report(tmp_path / "a")
    jsonschema.validate(report, schema())
    entry = {"job_id": "job_before", "seconds": 3.0}
    assert report["reused"] == [{"stage": stage} | entry for stage in DENSE]
    assert (
        "robust_training is from <code>job_before</code>"
        in (tmp_path / "a/results/report.html").read_text()
    )
    progress = [each["progress"] for each in events if each["type"] == "progress"]
    assert progress == sorted(progress)
    told = {each["stage"] for each in events if each["type"] == "metric"}
    assert told >= {"compressing", "finishing"}
    assert "robust_training" not in told

    confirms = Shelf(first / "shelf", "confirms")
    split = SPEC | {"evaluation": SPEC["evaluation"] | {"split": "validation"}}
    _, events = run_job(split, digits_model, small_digits_path, tmp_path / "b", shelf=confirms)
    assert confirms.made == ["evaluating_upload", "evaluating_dense"]
    # No stage that trains takes a step: each is taken over, and says no loss.
    trains = ["robust_training", "compressing", "finishing"]
    assert [each["stage"] for each in events if each.get("status") == "reused"] == trains
    assert not [each for each in events if each["type"] == "metric" and each["stage"] in trains]
    # What was taken is what would have been made.
    names = ("model.atmc", "dense.atmc")
    for name in names:
        own = (tmp_path / "b" / "results" / name).read_bytes()
        assert own == (first / "results" / name).read_bytes(), name
    assert read_report(tmp_path / "b")["evaluation"]["split"] == "validation"


@pytest.mark.parametrize("change", ["seed", "model", "robust_epochs", "method"])
def test_what_the_result_depends_on_makes_another_key(
    first: Path, digits_model: ModelInput, small_digits_path: Path, tmp_path: Path, change: str
) -> None:
    changed: dict[str, Any] = {
        "seed": {"seed": 1},
        "robust_epochs": {"training": SPEC["training"] | {"robust_epochs": 2}},
        "method": {"method": "ap"},
    }.get(change, {})
    shelf = Shelf(first / "shelf", "other", model="other" if change == "model" else "m")
    expected = {"robust_epochs": "robust_training", "method": "compressing"}

    def put(key: str, stage: str, *_: object) -> None:
        shelf.made.append(stage)
        raise Killed

    shelf.put = put  # type: ignore[method-assign]
    with pytest.raises(Killed):
        run_job(SPEC | changed, digits_model, small_digits_path, tmp_path, shelf=shelf)
    assert shelf.made == [expected.get(change, "evaluating_upload")]


def test_a_product_that_is_broken_or_fits_no_job_is_made_anew(
    first: Path, digits_model: ModelInput, small_digits_path: Path, tmp_path: Path
) -> None:
    shutil.copytree(first / "shelf", tmp_path / "shelf")
    for index, path in enumerate(sorted((tmp_path / "shelf").iterdir())):
        if index % 2:
            path.write_bytes(b"not a product")
        else:
            torch.save({"format": 9, "network": {"w": torch.zeros(1)}}, path)
    shelf = Shelf(tmp_path / "shelf", "wary")
    run_job(SPEC, digits_model, small_digits_path, tmp_path / "job", shelf=shelf)
    assert (shelf.refused, shelf.made) == (ALL, ALL)
    own = (tmp_path / "job" / "results" / "model.atmc").read_bytes()
    assert own == (first / "results" / "model.atmc").read_bytes()
    assert read_report(tmp_path / "job")["reused"] == []
