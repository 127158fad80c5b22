"""A method is added by a file in the folder of methods, and by nothing else."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
import torch

from atmc_core.job import methods
from atmc_core.job.catalogue import catalogue
from atmc_core.job.methods import all_methods, all_specs
from atmc_core.job.run import run
from atmc_core.networks.upload import ModelInput
from atmc_core.report.schema import schema
from atmc_spec import SPECS, read_spec
from benchmarks.small_job import ARCHITECTURE, fill_folder
from tests.atmc_core.job.whole_jobs import read_report

#: Pruning of a network whose weights were made smaller before: a method of somebody else's.
SHRUNK = """
from typing import Annotated, Literal

from pydantic import Field

from atmc_core.job.methods.pruning import Pruning
from atmc_core.job.stages import FixedStage
from atmc_spec import CompressionSpec


class ShrunkSpec(CompressionSpec):
    method: Literal["shrunk"]
    share: Annotated[float, Field(gt=0, le=1, description="what is left of each weight")] = 1.0


class Shrunk(Pruning):
    def start(self, weights, spec):
        smaller = {name: (spec.share * weight, view) for name, (weight, view) in weights.items()}
        return super().start(smaller, spec)


shrunk = Shrunk("shrunk", "Pruning of smaller weights", ShrunkSpec, FixedStage)
"""
SPEC: dict[str, Any] = {
    "method": "shrunk",
    "target": {"density": 0.1, "bits": 4},
    "threat": {"norm": "linf", "epsilon": 0.1, "steps": 1},
    "training": {"robust_epochs": 0, "compression_epochs": 1, "finish_epochs": 0},
    "evaluation": {
        "attacks": ["fgsm"],
        "max_images": 20,
        "curve_images": 5,
        "curve_steps": 1,
        "speed": False,
    },
}
#: ``python -m worker.child FOLDER``, with one more folder of methods.
CHILD = """
import sys
from atmc_core.job import methods
methods.__path__.append(sys.argv.pop())
from worker import child
child.main()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the file of a method, and nothing else."""
    folder = tmp_path / "methods"
    folder.mkdir()
    (folder / "shrunk.py").write_text(SHRUNK)
    return folder


def test_the_methods_are_those_of_the_spec_and_each_reads_its_own() -> None:
    assert all_specs() == dict(SPECS)
    for name, method in all_methods().items():
        assert get_args(method.spec.model_fields["method"].annotation) == (name,)


def test_a_file_of_its_own_adds_a_method_to_the_catalogue(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {entry.name for entry in catalogue() if entry.kind == "method"}
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(folder)])
    found = {entry.name: entry.document for entry in catalogue() if entry.kind == "method"}
    assert set(found) == {*before, "shrunk"}
    document = found["shrunk"]
    assert document["description"] == "Pruning of smaller weights"
    jsonschema.validate(SPEC | {"share": 0.5}, document["spec_schema"])
    with pytest.raises(jsonschema.ValidationError, match="greater than the maximum of 1"):
        jsonschema.validate(SPEC | {"share": 2}, document["spec_schema"])


def test_the_worker_s_child_runs_a_method_that_is_a_file_of_its_own(
    folder: Path, tmp_path: Path
) -> None:
    place = tmp_path / "job"
    fill_folder(place, SPEC | {"share": 0.5})
    subprocess.run([sys.executable, "-c", CHILD, place, folder], check=True)
    outcome = json.loads((place / "outcome.json").read_text())
    assert outcome["status"] == "succeeded", outcome
    report = read_report(place)
    assert (report["method"], report["spec"]["share"]) == ("shrunk", 0.5)
    jsonschema.validate(report, schema())
    assert 0 < report["headline"]["nonzeros"] <= report["headline"]["k"] == 3_816


def test_a_method_is_the_one_that_it_derives_from_where_it_changes_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(folder)])
    fill_folder(tmp_path, SPEC)
    model = ModelInput(tmp_path / "inputs" / "model.safetensors", ARCHITECTURE)

    def artifact(name: str, changes: dict[str, Any]) -> bytes:
        spec = read_spec(SPEC | changes, all_specs())
        place, device = tmp_path / name, torch.device("cpu")
        run(
            spec,
            model,
            tmp_path / "inputs" / "dataset.npz",
            place,
            device=device,
            emit=lambda _: None,
        )
        return (place / "results" / "model.atmc").read_bytes()

    same = artifact("same", {})
    assert artifact("pruning", {"method": "ap"}) == same != artifact("shrunk", {"share": 0.5})


def test_two_methods_of_one_name_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "another.py").write_text(SHRUNK.replace('"shrunk"', '"ap"'))
    (folder / "shrunk.py").unlink()
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(folder)])
    with pytest.raises(ValueError, match="two methods are called ap"):
        all_methods()
