"""The description of a network without its weights: all that it takes to build it."""

import copy
from dataclasses import dataclass

from torch import nn

from atmc_core.networks.architectures import build, get_architecture
from atmc_core.networks.architectures.registry import ImageShape
from atmc_core.networks.graph import Graph, build_module

#: The architecture's name for a network that was uploaded as ONNX and is described by a graph.
ONNX = "onnx"
#: The architecture's name for a network that only its maker can build.
OWN = "own"


@dataclass(frozen=True)
class Blueprint:
    """A network of a known architecture, of a graph, or of its maker's own.

    Attributes:
        architecture: a known name, ``torchvision/...``, ``onnx`` or ``own``.
        num_classes: the number of classes; 0 for an ``own`` network, where it is not known.
        input_shape: channels, height and width of the images; zeros for an ``own`` network.
        graph: the graph of an ``onnx`` network.
        module: the network that an ``own`` network is built as a copy of.
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
        """Make a blueprint from an artifact, which states only what the architecture leaves open.

        Args:
            architecture: as in the class.
            num_classes: as in the class; ignored for an ``own`` network.
            input_shape: None if the architecture or the graph fixes it.
            graph: as in the class.
            module: as in the class.

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
        """Build the network, ``[N, C, H, W]`` to ``[N, classes]``, with PyTorch's initial weights.

        An ``own`` network is a copy of ``module``, with its weights.

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
        """The input shape if neither the architecture nor the graph fixes it, else None."""
        if self.architecture == OWN:
            return None
        if self.graph is not None or None not in get_architecture(self.architecture).input_shape:
            return None
        return self.input_shape

    @property
    def input_name(self) -> str:
        """The name of the images in an ONNX export."""
        return self.graph.input_name if self.graph else "images"

    @property
    def output_name(self) -> str:
        """The name of the logits in an ONNX export."""
        return self.graph.output_name if self.graph else "logits"
