"""Short jobs of every method, network and number of bits write files that satisfy k and 2^b."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import safetensors.torch
import torch

from atmc_core import artifact
from atmc_core.artifact.budget import stored
from atmc_core.factors.splitting import interpolative
from atmc_core.factors.views import dense_weights
from atmc_core.networks.architectures import build
from atmc_core.networks.classifier import Classifier, Normalization
from atmc_core.networks.upload import ModelInput
from atmc_core.solver.admm import AdmmOptions, AdmmWeights
from atmc_core.solver.shared import SharedWeights
from atmc_core.solver.support import Channels, Structure
from atmc_spec import Bits, names
from tests.atmc_core.job.whole_jobs import run_job

METHODS = ("nap", "ap", "al0", "alr", "atmc")
DENSITY, CLASSES = 0.02, 10
ALL_BITS = get_args(Bits)
#: Channels and side of the images of the networks that take no photographs.
SMALL = {"digits_cnn": (1, 8)} | dict.fromkeys(
    ("lenet", "small_cnn", "strided_cnn", "wide_strided_cnn", "clipped_cnn"), (1, 28)
)
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


def _check_job(tmp_path: Path, method: str, architecture: str, bits: int) -> None:
    """Check the file that a job of one epoch a stage, on a dozen images, leaves."""
    channels, side = SMALL.get(architecture, (3, 32))
    # Low rank leaves every layer one singular value: of a small network that is more.
    density = 3 * DENSITY if method == "alr" else DENSITY
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
        "target": {"density": density, "bits": bits},
        "threat": {"norm": "linf", "epsilon": "4/255", "steps": 1},
        "training": {
            "robust_epochs": 1,
            "compression_epochs": 1,
            "finish_epochs": 1,
            "batch_size": 4,
            "learning_rate": 1e-3,
        },
        "evaluation": {"attacks": ["fgsm"], "curve_images": 2, "curve_steps": 1, "speed": False},
    }
    if method in ("al0", "atmc") and bits <= 8:
        document["training"]["dual_interval"] = 2
    run_job(document, ModelInput(network, architecture), data, tmp_path / "run")
    model = artifact.load(tmp_path / "run" / "results" / "model.atmc")
    weights = sum(torch.Size(f.view.shape).numel() for f in model.factors.values())
    _check(model, bits, round(density * weights))
    # By default biases and norms are rounded, unless nothing is.
    small = model.others.values()
    assert all(torch.equal(own, own.half().float()) for own in small) == (bits < 32)


def _check(model: artifact.CompressedModel, bits: int, k: int) -> None:
    tensors = [tensor for factors in model.factors.values() for tensor in factors.tensors]
    nonzeros = sum(int(tensor.count_nonzero()) for tensor in tensors)
    assert 0 < nonzeros <= k
    if bits <= 8:
        assert all(len(torch.unique(tensor[tensor != 0])) <= 2**bits for tensor in tensors)
    if bits == 16:
        assert all(torch.equal(tensor, tensor.half().float()) for tensor in tensors)


#: Which `test_job.py` and `test_options.py` have no job of.
RARE_BITS = (1, 6)


@pytest.mark.parametrize(
    "bits", [b if b in RARE_BITS else pytest.param(b, marks=pytest.mark.slow) for b in ALL_BITS]
)
def test_the_file_satisfies_both_constraints_at_all_bits(bits: int, tmp_path: Path) -> None:
    _check_job(tmp_path, "atmc", "digits_cnn", bits)


@pytest.mark.parametrize("bits", ALL_BITS)
def test_at_all_bits_the_file_satisfies_both_constraints_whatever_the_gradients_are(
    bits: int,
) -> None:
    _check_steps("digits_cnn", (1, 8, 8), bits, "element")


@pytest.mark.slow
@pytest.mark.parametrize("architecture", NETWORKS)
@pytest.mark.parametrize("method", METHODS)
def test_the_file_satisfies_both_constraints_for_every_method_and_network(
    method: str, architecture: str, tmp_path: Path
) -> None:
    _check_job(tmp_path, method, architecture, bits=3)


#: One of each family of torchvision's that has not far over ten million weights.
FAMILIES = (
    "densenet121",
    "efficientnet_b0",
    "mnasnet0_5",
    "mobilenet_v3_small",
    "regnet_y_400mf",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", get_args(names.StructureName))
@pytest.mark.parametrize("family", FAMILIES)
def test_whatever_the_gradients_are_the_file_satisfies_both_constraints(
    family: str, kind: str
) -> None:
    _check_steps(f"torchvision/{family}", (3, 64, 64), bits=3, kind=kind)


def _check_steps(architecture: str, shape: tuple[int, int, int], bits: int, kind: str) -> None:
    """The steps without images, so that networks for photographs take no longer than others."""
    torch.manual_seed(0)
    classifier = Classifier(build(architecture, CLASSES), Normalization(), channels=shape[0])
    network, weights = classifier.network, dense_weights(classifier.network)
    k, structure = round(DENSITY * sum(w.numel() for w, _ in weights.values())), Structure()
    if kind == "channel":
        structure = Channels(network)
        k = max(k, structure.least())
    factors = interpolative(weights)

    def step(net: AdmmWeights | SharedWeights) -> None:
        for parameter in classifier.parameters():
            parameter.grad = torch.randn_like(parameter)
        net.update(1e-3)
        structure.silence(network)

    moving = AdmmWeights(
        network,
        factors,
        k=k,
        bits=bits,
        steps=2,
        options=AdmmOptions(dual_interval=1),
        structure=structure,
    )
    for _ in range(2):
        step(moving)
    step(SharedWeights(network, factors, bits=bits))
    model = artifact.CompressedModel(
        architecture=architecture,
        num_classes=CLASSES,
        normalization=Normalization(),
        factors=factors,
        others=artifact.float_state(network, factors),
        bits=bits,
        k=k,
        input_shape=shape,
    )
    decoded = artifact.decode(artifact.encode(stored(model, structure)))
    _check(decoded, bits, k)
    composed = model.classifier().state_dict()
    if decoded.kept is None:
        for name, tensor in decoded.classifier().state_dict().items():
            assert torch.equal(tensor, composed[name])
