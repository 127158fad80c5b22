"""The table of known architectures, and their descriptions as JSON."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from atmc_core.errors import InvalidInput
from atmc_core.factors.views import compressible_weights
from atmc_core.networks.architectures import torchvision_models
from atmc_core.networks.architectures.convolutional import mobilenet_v2, vgg16_bn
from atmc_core.networks.architectures.resnet import (
    resnet18,
    resnet34,
    resnet50,
    wide_resnet_16_8,
    wide_resnet_28_10,
)
from atmc_core.networks.architectures.small import (
    clipped_cnn,
    digits_cnn,
    lenet,
    normed_clipped_cnn,
    small_cnn,
    strided_cnn,
    wide_clipped_cnn,
    wide_strided_cnn,
)

# Networks are described with a number of classes that equals no other dimension, so that a
# dimension of this size must be the number of classes. The smaller number is for builders that
# allocate real memory.
_MARKER_CLASSES, _SMALL_MARKER_CLASSES = 99_991, 1_009

#: Channels, height and width.
ImageShape = tuple[int, int, int]


@dataclass(frozen=True)
class Architecture:
    """A network that is known by name.

    Attributes:
        name: the name.
        builder: makes the network for a number of classes; its docstring is the description.
        input_shape: channels, height and width of the images; None if the data set decides.
    """

    name: str
    builder: Callable[[int], nn.Module]
    input_shape: tuple[int, int | None, int | None]

    def describe(self) -> dict[str, Any]:
        """The names and shapes of the network's tensors, as JSON.

        In a shape, a dimension that is the number of classes is the text "num_classes".
        """
        network, marker = self.with_marker()
        tensors = {
            key: {
                "shape": ["num_classes" if size == marker else size for size in tensor.shape],
                "optional": key.endswith("num_batches_tracked"),
            }
            for key, tensor in network.state_dict().items()
        }
        return {
            "name": self.name,
            "description": inspect.getdoc(self.builder),
            "input_shape": list(self.input_shape),
            "tensors": tensors,
            "compressible": list(compressible_weights(network)),
        }

    def with_marker(self) -> tuple[nn.Module, int]:
        """The network with a number of classes that equals no other dimension, and the number."""
        try:
            with torch.device("meta"):
                return self.builder(_MARKER_CLASSES), _MARKER_CLASSES
        except NotImplementedError:
            # RegNet's builder computes widths with tensors, which the meta device cannot do.
            return self.builder(_SMALL_MARKER_CLASSES), _SMALL_MARKER_CLASSES

    def shape_for(self, images: Sequence[int]) -> ImageShape:
        """The input shape, with the dimensions that it leaves open taken from the images.

        Args:
            images: channels, height and width of the images.
        """
        channels, height, width = (
            given if own is None else own
            for own, given in zip(self.input_shape, images, strict=True)
        )
        return channels, height, width


#: The known architectures by name, but for torchvision's.
ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        Architecture("digits_cnn", digits_cnn, (1, 8, 8)),
        Architecture("lenet", lenet, (1, 28, 28)),
        Architecture("mobilenet_v2", mobilenet_v2, (3, 32, 32)),
        Architecture("resnet18", resnet18, (3, 32, 32)),
        Architecture("resnet34", resnet34, (3, 32, 32)),
        Architecture("resnet50", resnet50, (3, 32, 32)),
        Architecture("small_cnn", small_cnn, (1, 28, 28)),
        Architecture("strided_cnn", strided_cnn, (1, 28, 28)),
        Architecture("wide_strided_cnn", wide_strided_cnn, (1, 28, 28)),
        Architecture("clipped_cnn", clipped_cnn, (1, 28, 28)),
        Architecture("wide_clipped_cnn", wide_clipped_cnn, (1, 28, 28)),
        Architecture("normed_clipped_cnn", normed_clipped_cnn, (1, 28, 28)),
        Architecture("vgg16_bn", vgg16_bn, (3, 32, 32)),
        Architecture("wide_resnet_16_8", wide_resnet_16_8, (3, 32, 32)),
        Architecture("wide_resnet_28_10", wide_resnet_28_10, (3, 32, 32)),
    )
}


def register_architecture(
    name: str,
    builder: Callable[[int], nn.Module],
    input_shape: tuple[int, int | None, int | None],
) -> None:
    """Give a network of your own a name, under which files are saved and read.

    The name is known only in the process that registers it, so a program that reads such a file has
    to register it, too. A worker does so in a module that it imports at its start.

    Args:
        name: the name, of letters, digits and underscores; it must not be taken.
        builder: makes the network for a number of classes; its docstring is the description.
        input_shape: channels, height and width of the images; height and width are None if the
            data set decides.

    Raises:
        ValueError: if the name is taken or has other characters, or if no dimension of the
            network's tensors is the number of classes.

    Example:
        >>> from torch import nn
        >>> def tiny(num_classes):
        ...     "One linear layer for 8x8 images of one channel."
        ...     return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))
        >>> register_architecture("tiny", tiny, (1, 8, 8))
        >>> ARCHITECTURES.pop("tiny").input_shape
        (1, 8, 8)
    """
    if not name.isidentifier() or not name.isascii():
        raise ValueError(f"{name!r} is no name: use letters, digits and underscores")
    if name in ARCHITECTURES:
        raise ValueError(f"{name!r} is taken: choose another name")
    architecture = Architecture(name, builder, input_shape)
    tensors = architecture.describe()["tensors"].values()
    if not any("num_classes" in tensor["shape"] for tensor in tensors):
        raise ValueError(f"{name!r} has no tensor whose shape follows the number of classes")
    ARCHITECTURES[name] = architecture


def get_architecture(name: str) -> Architecture:
    """The architecture of that name: one of ``ARCHITECTURES``, or ``torchvision/...``.

    Raises:
        InvalidInput: ``unknown_architecture`` if there is none; the message lists known names.
    """
    if name.startswith(torchvision_models.PREFIX):
        return Architecture(name, torchvision_models.builder(name), (3, None, None))
    if name not in ARCHITECTURES:
        known = ", ".join([*ARCHITECTURES, f"{torchvision_models.PREFIX}NAME"])
        raise InvalidInput(
            "unknown_architecture", f"{name!r} is not one of {known}", "architecture"
        )
    return ARCHITECTURES[name]


def build(name: str, num_classes: int) -> nn.Module:
    """Build the network of that name, with PyTorch's initial weights.

    Raises:
        InvalidInput: ``unknown_architecture`` if there is no such architecture.
    """
    return get_architecture(name).builder(num_classes)


def bind_num_classes(name: str, shapes: Mapping[str, Sequence[int]]) -> int:
    """Find the number of classes of a state dict.

    Args:
        name: the architecture's name.
        shapes: the shape of each tensor by its name.

    Raises:
        InvalidInput: ``tensor_mismatch`` if the tensor that tells the number of classes is missing
            or has another number of dimensions.
        ValueError: if no tensor of the architecture tells the number of classes.
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
