"""A job says before it trains that the network cannot be written as ONNX."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from atmc_core.artifact.export import try_onnx
from atmc_core.job.run import prepare
from atmc_core.networks.blueprint import Blueprint
from atmc_core.networks.classifier import Classifier, Normalization
from atmc_core.networks.onnx import exporter
from atmc_core.networks.upload import ModelInput
from atmc_spec import read_spec
from tests.atmc_core.job.whole_jobs import THREAT

SPEC = {"threat": THREAT, "target": {"bits": 8, "density": 0.5}, "method": "nap"}
CPU = torch.device("cpu")


class _Inverse(nn.Module):
    """A network with an operation that no opset of ONNX has."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 16)

    def forward(self, images: Tensor) -> Tensor:
        return torch.linalg.inv(self.fc(images.flatten(1)).reshape(-1, 4, 4)).flatten(1)


def test_a_network_that_onnx_cannot_hold_is_told_of_and_left_as_it_is() -> None:
    events: list[dict[str, Any]] = []
    classifier = Classifier(_Inverse().train(), Normalization(), 1)
    try_onnx(classifier, Blueprint("digits_cnn", 16, (1, 8, 8)), events.append)
    (event,) = events
    assert (event["type"], event["code"]) == ("warning", "onnx_not_exported")
    assert "linalg_inv" in event["message"]
    assert "The job goes on" in event["message"]
    assert classifier.training
    assert classifier.network.training


def _events(spec: dict[str, Any], model: ModelInput, data: Path, folder: Path) -> list[Any]:
    """What a job says while it is prepared."""
    events: list[dict[str, Any]] = []
    prepare(read_spec(spec), model, data, folder, CPU, events.append)
    (last,) = [i for i, each in enumerate(events) if each.get("status") == "finished"]
    assert events[last]["stage"] == "validating"
    return [each["code"] for each in events[:last] if each["type"] == "warning"]


def test_the_export_is_tried_in_validating(
    digits_model: ModelInput, digits_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "onnx_not_exported" not in _events(SPEC, digits_model, digits_path, tmp_path / "good")
    monkeypatch.setattr(exporter, "TOLERANCE", -1)  # whatever is written differs by more
    assert "onnx_not_exported" in _events(SPEC, digits_model, digits_path, tmp_path / "bad")
    evaluate = {"threat": THREAT, "method": "evaluate"}
    assert "onnx_not_exported" not in _events(evaluate, digits_model, digits_path, tmp_path / "no")
