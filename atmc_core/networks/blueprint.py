"""What a network is, without its weights: all that it takes to build it again."""

import copy
from dataclasses import dataclass

from torch import nn

from atmc_core.networks.architectures import build, get_architecture
from atmc_core.networks.architectures.registry import ImageShape
from atmc_core.networks.graph import Graph, build_module

#: The architecture of a network that came as ONNX: its graph is its own.
ONNX = "onnx"
#: That of a network that only its maker can build.
OWN = "own"


@dataclass(frozen=True)
class Blueprint:
    """A network of a known architecture, or one with a graph of its own.

    Attributes:
        architecture: a known name, ``torchvision/...``, or ``onnx``.
        input_shape: channels, height, width.
        graph: of an ``onnx`` network.
        module: of an ``own`` network: what it is built as a copy of. Classes and images of such a
            one are its maker's matter, and 0 here.
    """

    architecture: str
    num_classes: int
    input_shape: ImageShape
    graph: Graph | None = None
    module: nn.Module | None = None

    @classmethod
    def of(
        cls,
        architecture: str,
        num_classes: int,
        input_shape: ImageShape | None,
        graph: Graph | None,
        module: nn.Module | None = None,
    ) -> "Blueprint":
        """As an artifact has it, which says only what the architecture leaves open.

        Raises:
            InvalidInput: if the architecture is not known.
            ValueError: if the size of the images is not known.
        """
        if architecture == OWN:
            return cls(OWN, 0, (0, 0, 0), module=module)
        if graph is not None:
            input_shape = graph.input_shape
        if input_shape is None:
            channels, height, width = get_architecture(architecture).input_shape
            if height is None or width is None:
                raise ValueError(f"{architecture} needs an input_shape")
            input_shape = (channels, height, width)
        return cls(architecture, num_classes, input_shape, graph)

    def build(self) -> nn.Module:
        """The network, with PyTorch's initial weights.

        Raises:
            InvalidInput: if the architecture or an operation of the graph is not known.
        """
        if self.module is not None:
            return copy.deepcopy(self.module)
        if self.graph is not None:
            return build_module(self.graph)
        return build(self.architecture, self.num_classes)

    @property
    def open_shape(self) -> ImageShape | None:
        """The input shape if neither architecture nor graph says it."""
        if self.architecture == OWN:
            return None
        if self.graph is not None or None not in get_architecture(self.architecture).input_shape:
            return None
        return self.input_shape

    @property
    def input_name(self) -> str:
        """Of the images, where the network is exported as ONNX."""
        return self.graph.input_name if self.graph else "images"

    @property
    def output_name(self) -> str:
        """Of the logits, likewise."""
        return self.graph.output_name if self.graph else "logits"
