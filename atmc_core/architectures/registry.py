"""The table of known architectures, and the description of each that needs no PyTorch to use."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from atmc_core.architectures.resnet import resnet18, resnet34, wide_resnet_16_8
from atmc_core.architectures.small import digits_cnn, lenet
from atmc_core.errors import InvalidInput
from atmc_core.factorization import compressible_weights

# Two sizes that no fixed dimension has: a dimension equal to both in turn is the number of classes.
_PROBES = (99_991, 99_989)


@dataclass(frozen=True)
class Architecture:
    """A network by name.

    Attributes:
        builder: makes it for a number of classes; its docstring is the description.
        input_shape: channels, height, width.
    """

    name: str
    builder: Callable[[int], nn.Module]
    input_shape: tuple[int, int, int]

    def describe(self) -> dict[str, Any]:
        """Tensor names and shapes as JSON; a dimension that is the number of classes says so."""
        with torch.device("meta"):
            first, second = (self.builder(probe) for probe in _PROBES)
        tensors = {}
        others = second.state_dict()
        for key, tensor in first.state_dict().items():
            pairs = zip(tensor.shape, others[key].shape, strict=True)
            tensors[key] = {
                "shape": ["num_classes" if a != b else a for a, b in pairs],
                "optional": key.endswith("num_batches_tracked"),
            }
        return {
            "name": self.name,
            "description": inspect.getdoc(self.builder),
            "input_shape": list(self.input_shape),
            "tensors": tensors,
            "compressible": list(compressible_weights(first)),
        }


ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        Architecture("digits_cnn", digits_cnn, (1, 8, 8)),
        Architecture("lenet", lenet, (1, 28, 28)),
        Architecture("resnet18", resnet18, (3, 32, 32)),
        Architecture("resnet34", resnet34, (3, 32, 32)),
        Architecture("wide_resnet_16_8", wide_resnet_16_8, (3, 32, 32)),
    )
}


def get_architecture(name: str) -> Architecture:
    """The architecture of that name.

    Raises:
        InvalidInput: if there is none; the message lists the known ones.
    """
    if name not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise InvalidInput(
            "unknown_architecture", f"{name!r} is not one of {known}", "architecture"
        )
    return ARCHITECTURES[name]


def build(name: str, num_classes: int) -> nn.Module:
    """The network, with PyTorch's initial weights."""
    return get_architecture(name).builder(num_classes)


def bind_num_classes(name: str, shapes: Mapping[str, Sequence[int]]) -> int:
    """The number of classes that a state dict of these shapes has.

    Raises:
        InvalidInput: if a tensor that would tell is missing, or too small to be a classifier's.
    """
    tensors = get_architecture(name).describe()["tensors"]
    for key, tensor in tensors.items():
        if "num_classes" in tensor["shape"]:
            axis = tensor["shape"].index("num_classes")
            if key not in shapes or len(shapes[key]) != len(tensor["shape"]):
                raise InvalidInput(
                    "tensor_mismatch", f"{key} is missing or has no axis {axis}", key
                )
            return int(shapes[key][axis])
    raise ValueError(f"{name} has no dimension that is the number of classes")
