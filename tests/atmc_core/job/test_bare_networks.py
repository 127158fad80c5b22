"""Jobs on networks that have next to nothing: no biases, no norms, one layer, none."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from atmc_core.errors import InvalidInput
from atmc_core.job.methods import all_methods
from atmc_core.networks.upload import ModelInput
from tests.atmc_core.job.whole_jobs import EVALUATION, THREAT, run_job

QUICK = EVALUATION | {"level": "quick", "attacks": ["fgsm"], "max_images": 8, "curve_images": 8}
NETWORKS = {
    "two convolutions": nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.ReLU(), nn.Conv2d(4, 3, 6, bias=False), nn.Flatten()
    ),
    "one layer": nn.Sequential(nn.Flatten(), nn.Linear(64, 3, bias=False)),
    "no layer": nn.Sequential(nn.AvgPool2d((8, 2)), nn.Flatten()),
    "a layer without entries": nn.Sequential(nn.Flatten(), nn.Linear(64, 0), nn.Linear(0, 3)),
}
COMPRESSING = sorted(all_methods().keys() - {"evaluate"})


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes, told apart by where the light is."""
    labels = np.arange(48) % 3
    pixels = np.random.default_rng(0).integers(0, 60, (48, 8, 8)).astype(np.uint8)
    for label in range(3):
        pixels[labels == label, :, 2 * label : 2 * label + 2] += 150
    path = tmp_path_factory.mktemp("images") / "images.npz"
    np.savez(path, x_train=pixels, y_train=labels, x_test=pixels[:12], y_test=labels[:12])
    return path


def run(kind: str, method: str, images: Path, folder: Path, structure: str = "element") -> Any:
    path = folder / "model.onnx"
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            NETWORKS[kind].eval(), (torch.rand(1, 1, 8, 8),), path, dynamo=False, opset_version=17
        )
    document: dict[str, Any] = {"method": method, "threat": THREAT, "evaluation": QUICK}
    if method != "evaluate":
        target = {"density": 1, "bits": 32} if method == "da" else {"density": 0.6, "bits": 4}
        document["target"] = target | ({} if structure == "element" else {"structure": structure})
        epochs = {"robust_epochs": 1, "compression_epochs": 1, "finish_epochs": 1}
        document["training"] = {"robust_epochs": 1} if method == "da" else epochs
        document["threat"] = THREAT | {"steps": 1}
    return run_job(document, ModelInput(path, "onnx"), images, folder / "job")


@pytest.mark.parametrize("method", COMPRESSING)
@pytest.mark.parametrize("kind", ["two convolutions", "one layer"])
def test_a_network_without_biases_is_compressed(
    kind: str, method: str, images: Path, tmp_path: Path
) -> None:
    headline, _ = run(kind, method, images, tmp_path)
    assert 0 < headline["nonzeros"] <= headline["k"]


def test_so_are_its_channels(images: Path, tmp_path: Path) -> None:
    headline, _ = run("two convolutions", "atmc", images, tmp_path, structure="channel")
    assert 0 < headline["nonzeros"] <= headline["k"]


@pytest.mark.parametrize("method", COMPRESSING)
@pytest.mark.parametrize("kind", ["no layer", "a layer without entries"])
def test_a_network_without_weights_is_refused_in_validating(
    kind: str, method: str, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match="cannot be compressed") as refused:
        run(kind, method, images, tmp_path)
    assert refused.value.code == "unsupported_network"
    if method in ("nap", "atmc"):
        with pytest.raises(InvalidInput, match="cannot be compressed"):
            run(kind, method, images, tmp_path, structure="channel")


@pytest.mark.parametrize("kind", ["no layer", "a layer without entries"])
def test_but_it_can_be_evaluated(kind: str, images: Path, tmp_path: Path) -> None:
    headline, events = run(kind, "evaluate", images, tmp_path)
    assert 0 <= headline["clean_accuracy_before"] <= 1
    assert events[-1]["status"] == "finished"
