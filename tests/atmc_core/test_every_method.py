"""Whole short jobs of every method, network and number of bits: the file satisfies k and 2^b."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import safetensors.torch
import torch

from atmc_core import artifact
from atmc_core.architectures import build
from atmc_core.config import Bits
from atmc_core.job import ModelInput
from tests.atmc_core.whole_jobs import run_job

METHODS = ("nap", "ap", "al0", "alr", "atmc")
DENSITY, CLASSES = 0.02, 10
#: Channels and side of the images of the networks that take no photographs.
SMALL = {"digits_cnn": (1, 8), "lenet": (1, 28)}
NETWORKS = (
    *SMALL,
    "mobilenet_v2",
    "resnet18",
    "resnet34",
    "resnet50",
    "vgg16_bn",
    "wide_resnet_16_8",
    "wide_resnet_28_10",
    "torchvision/squeezenet1_1",
    "torchvision/shufflenet_v2_x0_5",
)


def _job(tmp_path: Path, method: str, architecture: str, bits: int) -> artifact.CompressedModel:
    """The file that a job of one epoch a stage, on a dozen images, leaves."""
    channels, side = SMALL.get(architecture, (3, 32))
    generator = np.random.default_rng(0)
    labels = np.arange(12) % CLASSES
    images = generator.integers(0, 256, (12, side, side, channels), dtype=np.uint8)
    arrays = {
        f"{kind}_{split}": a
        for split in ("train", "val", "test")
        for kind, a in (("x", images), ("y", labels))
    }
    data, network = tmp_path / "data.npz", tmp_path / "network.safetensors"
    np.savez(data, **arrays)  # type: ignore[arg-type]
    torch.manual_seed(0)
    safetensors.torch.save_file(build(architecture, CLASSES).state_dict(), network)
    document: dict[str, Any] = {
        "method": method,
        "target": {"density": DENSITY, "bits": bits},
        "threat": {"norm": "linf", "epsilon": "4/255", "steps": 1},
        "training": {
            "robust_epochs": 1,
            "compression_epochs": 1,
            "finish_epochs": 1,
            "batch_size": 4,
            "learning_rate": 1e-3,
        },
        "evaluation": {"attacks": ["fgsm"], "curve_images": 2, "curve_steps": 1},
    }
    if method in ("al0", "atmc") and bits <= 8:
        document["training"]["dual_interval"] = 2
    run_job(document, ModelInput(network, architecture), data, tmp_path / "run")
    return artifact.load(tmp_path / "run" / "results" / "model.atmc")


def _check(model: artifact.CompressedModel, bits: int) -> None:
    weights = sum(torch.Size(f.view.shape).numel() for f in model.factors.values())
    tensors = [tensor for factors in model.factors.values() for tensor in factors.tensors]
    nonzeros = sum(int(tensor.count_nonzero()) for tensor in tensors)
    k = round(DENSITY * weights)
    assert 0 < nonzeros <= k
    if bits <= 8:
        assert all(len(torch.unique(tensor[tensor != 0])) <= 2**bits for tensor in tensors)
    if bits == 16:
        assert all(torch.equal(tensor, tensor.half().float()) for tensor in tensors)


@pytest.mark.parametrize("bits", get_args(Bits))
def test_the_file_satisfies_both_constraints_at_all_bits(bits: int, tmp_path: Path) -> None:
    _check(_job(tmp_path, "atmc", "digits_cnn", bits), bits)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", NETWORKS)
@pytest.mark.parametrize("method", METHODS)
def test_the_file_satisfies_both_constraints_for_every_method_and_network(
    method: str, architecture: str, tmp_path: Path
) -> None:
    _check(_job(tmp_path, method, architecture, bits=3), bits=3)
