"""What a network is, without its weights: all that it takes to build it again."""

from dataclasses import dataclass

from torch import nn

from atmc_core.architectures import build
from atmc_core.architectures.registry import ImageShape
from atmc_core.graph import Graph, build_module

#: The architecture of a network that came as ONNX: its graph is its own.
ONNX = "onnx"


@dataclass(frozen=True)
class Blueprint:
    """A network of a known architecture, or one with a graph of its own.

    Attributes:
        architecture: a known name, ``torchvision/...``, or ``onnx``.
        input_shape: channels, height, width.
        graph: of an ``onnx`` network.
    """

    architecture: str
    num_classes: int
    input_shape: ImageShape
    graph: Graph | None = None

    def build(self) -> nn.Module:
        """The network, with PyTorch's initial weights.

        Raises:
            InvalidInput: if the architecture or an operation of the graph is not known.
        """
        if self.graph is not None:
            return build_module(self.graph)
        return build(self.architecture, self.num_classes)

    @property
    def input_name(self) -> str:
        """Of the images, where the network is exported as ONNX."""
        return self.graph.input_name if self.graph else "images"

    @property
    def output_name(self) -> str:
        """Of the logits, likewise."""
        return self.graph.output_name if self.graph else "logits"
