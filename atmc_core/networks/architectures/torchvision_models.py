"""The image classifiers of ``torchvision.models``, under names such as ``torchvision/resnet18``."""

import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from atmc_core.errors import InvalidInput
from atmc_core.networks.torchvision_import import torchvision_models

PREFIX = "torchvision/"


def variants() -> list[str]:
    """The names of torchvision's classifiers, without the prefix."""
    models = torchvision_models()
    names: list[str] = models.list_models(module=models)
    return names


def builder(name: str) -> Callable[[int], nn.Module]:
    """A function that makes the network ``torchvision/NAME``, untrained, for a number of classes.

    Raises:
        InvalidInput: ``unknown_architecture`` if torchvision has no such classifier; the message
            lists similar names.
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
        # GoogLeNet and Inception warn about their initial weights, which are replaced anyway.
        warnings.simplefilter("ignore")
        network: nn.Module = torchvision_models().get_model(variant, num_classes=num_classes)
    return network


def check_supported(name: str, network: nn.Module, input_shape: tuple[int, int, int]) -> None:
    """Check that the method can train the network on images of this shape.

    Args:
        name: the network's name, for messages.
        network: the network; it is put into evaluation mode.
        input_shape: channels, height and width of the images.

    Raises:
        InvalidInput: ``unsupported_network`` if a part of the network is not supported (the message
            names it), or ``image_shape_mismatch`` if the network cannot take such images.
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
