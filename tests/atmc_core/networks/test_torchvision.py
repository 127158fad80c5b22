"""torchvision's classifiers are built by name to fit a state dict, at any size and class count."""

from pathlib import Path

import pytest
import safetensors.torch
import torch

from atmc_core.errors import InvalidInput
from atmc_core.factors.views import compressible_weights
from atmc_core.networks.architectures import build
from atmc_core.networks.classifier import Normalization
from atmc_core.networks.upload import ModelInput, open_upload

SMALL = (
    "mnasnet0_5",
    "mobilenet_v3_small",
    "regnet_y_400mf",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
)
LARGE = ("convnext_tiny", "densenet121", "efficientnet_b0", "resnet18", "vgg11_bn")


def _check(variant: str, folder: Path) -> None:
    torch.manual_seed(0)
    network = build(f"torchvision/{variant}", 7).eval()
    safetensors.torch.save_file(network.state_dict(), folder / "net.safetensors")
    upload = open_upload(ModelInput(folder / "net.safetensors", f"torchvision/{variant}"))
    loaded = upload.load((3, 64, 64))
    assert (loaded.blueprint.num_classes, loaded.blueprint.input_shape) == (7, (3, 64, 64))
    classifier = loaded.classifier(Normalization()).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(classifier(images), network(images), atol=1e-5)
    assert compressible_weights(loaded.network)


@pytest.mark.parametrize("variant", SMALL)
def test_a_state_dict_comes_in_by_name(variant: str, tmp_path: Path) -> None:
    _check(variant, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("variant", LARGE)
def test_a_large_state_dict_comes_in_by_name(variant: str, tmp_path: Path) -> None:
    _check(variant, tmp_path)


REFUSED = {
    "vit_b_32": ("unsupported_network", "packed weights"),
    "googlenet": ("unsupported_network", "auxiliary heads"),
}


@pytest.mark.parametrize("variant", REFUSED)
def test_what_does_not_come_in_is_named(variant: str, tmp_path: Path) -> None:
    code, said = REFUSED[variant]
    state = build(f"torchvision/{variant}", 2).state_dict()
    safetensors.torch.save_file(state, tmp_path / "net.safetensors")
    upload = open_upload(ModelInput(tmp_path / "net.safetensors", f"torchvision/{variant}"))
    with pytest.raises(InvalidInput, match=said) as refused:
        upload.load((3, 224, 224))
    assert refused.value.code == code


def test_all_that_does_not_fit_is_listed_at_once(tmp_path: Path) -> None:
    state = build("torchvision/squeezenet1_1", 3).state_dict()
    renamed = {name.replace("classifier.1", "head"): tensor for name, tensor in state.items()}
    safetensors.torch.save_file(renamed, tmp_path / "net.safetensors")
    upload = open_upload(ModelInput(tmp_path / "net.safetensors", "torchvision/squeezenet1_1"))
    with pytest.raises(InvalidInput) as refused:
        upload.load((3, 64, 64))
    assert refused.value.code == "tensor_mismatch"
    assert "2 missing keys (classifier.1.weight, classifier.1.bias)" in refused.value.message
    assert "2 unexpected keys (head.bias, head.weight)" in refused.value.message


def test_a_checkpoint_comes_in_by_name(tmp_path: Path) -> None:
    state = build("torchvision/squeezenet1_1", 3).state_dict()
    wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save({"epoch": 3, "state_dict": wrapped}, tmp_path / "net.pt")
    loaded = open_upload(ModelInput(tmp_path / "net.pt", "torchvision/squeezenet1_1")).load(
        (3, 64, 64)
    )
    assert [code for code, _ in loaded.notes] == ["state_dict_nested", "prefix_stripped"]
    assert all(torch.equal(t, state[name]) for name, t in loaded.network.state_dict().items())


def test_images_that_do_not_pass_through_are_refused(tmp_path: Path) -> None:
    state = build("torchvision/squeezenet1_1", 3).state_dict()
    safetensors.torch.save_file(state, tmp_path / "net.safetensors")
    upload = open_upload(ModelInput(tmp_path / "net.safetensors", "torchvision/squeezenet1_1"))
    with pytest.raises(InvalidInput, match="cannot take images") as refused:
        upload.load((3, 8, 8))
    assert refused.value.code == "image_shape_mismatch"


def test_an_unknown_name_is_answered_with_those_that_begin_alike() -> None:
    with pytest.raises(InvalidInput, match="resnet18") as refused:
        build("torchvision/resnet_of_ours", 2)
    assert refused.value.code == "unknown_architecture"
