"""Every image classifier of ``torchvision.models``, by one adapter: ``torchvision/resnet18``."""

import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from atmc_core.errors import InvalidInput
from atmc_core.networks.torchvision_import import torchvision_models

PREFIX = "torchvision/"


def variants() -> list[str]:
    """The names of the builders, without the prefix."""
    models = torchvision_models()
    names: list[str] = models.list_models(module=models)
    return names


def builder(name: str) -> Callable[[int], nn.Module]:
    """What makes the network ``torchvision/NAME`` for a number of classes, weights untrained.

    Raises:
        InvalidInput: ``unknown_architecture``, with the names that begin alike.
    """
    variant = name.removeprefix(PREFIX)
    known = variants()
    if variant not in known:
        alike = [each for each in known if each[:3] == variant[:3]] or known
        raise InvalidInput(
            "unknown_architecture",
            f"torchvision has no classifier {variant!r}; choose from {', '.join(alike)}",
            "architecture",
        )
    return partial(_make, variant)


def _make(variant: str, num_classes: int) -> nn.Module:
    with warnings.catch_warnings():
        # GoogLeNet and Inception warn of initial weights, which an upload replaces.
        warnings.simplefilter("ignore")
        network: nn.Module = torchvision_models().get_model(variant, num_classes=num_classes)
    return network


def check_supported(name: str, network: nn.Module, input_shape: tuple[int, int, int]) -> None:
    """Check that the method can train the network on images of this shape.

    Raises:
        InvalidInput: ``unsupported_network``, naming what stands in the way, or
            ``image_shape_mismatch`` if images of this shape do not pass through.
    """
    for key, module in network.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            raise InvalidInput(
                "unsupported_network",
                f"{name}: attention with packed weights ({key}.in_proj_weight) is not supported",
                "architecture",
            )
    auxiliary = [key for key, _ in network.named_children() if key.lower().startswith("aux")]
    if auxiliary:
        raise InvalidInput(
            "unsupported_network",
            f"{name}: auxiliary heads ({', '.join(auxiliary)}) are not supported",
            "architecture",
        )
    try:
        with torch.no_grad():
            logits = network.eval()(torch.zeros(1, *input_shape))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InvalidInput(
            "image_shape_mismatch",
            f"{name} cannot take images of {list(input_shape)} (channels, height, width): {error}",
            "dataset",
        ) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise InvalidInput(
            "unsupported_network", f"{name} does not return logits [N, classes]", "architecture"
        )
