"""A network as a list of steps that have bounds.

The network is run once on a few images, and PyTorch's own operations are recorded as they come
(``make_fx``), whichever module, function or ONNX graph calls them. What does not depend on the
images is computed then and there.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx

from atmc_core.certification.refusal import NotProvable
from atmc_core.certification.rules import RULES, Given
from atmc_core.certification.steps import Step

# The network is traced with so many images. A step whose output has another length is one that
# mixes images.
_TRACED = 3


@dataclass(frozen=True)
class Placed:
    """A step in a program.

    Attributes:
        step: the step.
        inputs: the numbers of the values that it reads; 0 is the images, 1 the first step's output.
        shape: that of its output, without the batch axis.
    """

    step: Step
    inputs: tuple[int, ...]
    shape: torch.Size


@dataclass(frozen=True)
class Program:
    """The steps of a network in running order; the last one makes the logits.

    Attributes:
        steps: the steps.
        shape: the shape of an image.
        output: the number of the value that is the logits.
    """

    steps: tuple[Placed, ...]
    shape: torch.Size
    output: int

    @classmethod
    def of(
        cls, network: nn.Module, shape: Sequence[int], dtype: torch.dtype = torch.float64
    ) -> "Program":
        """Read a network in evaluation mode.

        Args:
            network: maps images ``[N, C, H, W]`` to logits ``[N, classes]``; it is copied.
            shape: that of an image, ``(C, H, W)``.
            dtype: the precision of all bounds.

        Raises:
            NotProvable: if it has an operation without a bound.
        """
        own = copy.deepcopy(network).eval().to(dtype)
        device = next((tensor.device for tensor in own.parameters()), torch.device("cpu"))
        images = torch.rand(_TRACED, *shape, dtype=dtype, device=device)
        try:
            with torch.no_grad():
                traced = make_fx(functionalize(own))(images)
        except Exception as error:  # whatever a network of somebody's own may raise
            raise NotProvable(f"the network cannot be traced: {error}") from error
        traced.graph.eliminate_dead_code()
        return _Reader(traced, images).program()

    def run(self, images: Tensor) -> Tensor:
        """Compute the logits, ``[N, classes]``, as the network does."""
        values = [images]
        for placed in self.steps:
            values.append(placed.step.run(*(values[i] for i in placed.inputs)))
        return values[self.output]


class _Reader:
    """Turns a traced graph into steps."""

    def __init__(self, traced: fx.GraphModule, images: Tensor) -> None:
        self.traced, self.images = traced, images
        self.known: dict[fx.Node, Any] = {}
        self.numbers: dict[fx.Node, int] = {}
        self.shapes = [images.shape[1:]]
        self.steps: list[Placed] = []
        #: Operations with several outputs, which become steps where one of these is read.
        self.pending: set[fx.Node] = set()

    def program(self) -> Program:
        points: dict[fx.Node, Any] = {}
        output = 0
        for node in self.traced.graph.nodes:
            if node.op == "placeholder":
                self.numbers[node], points[node] = 0, self.images
            elif node.op == "get_attr":
                self.known[node] = points[node] = _attribute(self.traced, str(node.target))
            elif node.op == "output":
                found = node.args[0]
                found = found[0] if isinstance(found, list | tuple) else found
                if found not in self.numbers:
                    raise NotProvable("the logits do not depend on the image")
                output = self.numbers[found]
            else:
                self._visit(node, points)
        return Program(tuple(self.steps), self.images.shape[1:], output)

    def _visit(self, node: fx.Node, points: dict[fx.Node, Any]) -> None:
        args = fx.node.map_arg(node.args, lambda each: points[each])
        kwargs = fx.node.map_arg(node.kwargs, lambda each: points[each])
        assert callable(node.target)
        value = points[node] = node.target(*args, **kwargs)
        if not any(each in self.numbers or each in self.pending for each in node.all_input_nodes):
            self.known[node] = value
            return
        self._step(node, value)

    def _step(self, node: fx.Node, value: Any) -> None:
        target, node_args, node_kwargs = node.target, node.args, node.kwargs
        part: int | None = None
        if getattr(target, "__name__", "") == "getitem":
            source = node.args[0]
            assert isinstance(source, fx.Node)
            part = int(node.args[1])  # type: ignore[arg-type]
            target, node_args, node_kwargs = source.target, source.args, source.kwargs
        elif isinstance(value, list | tuple):
            self.pending.add(node)
            return
        inputs: list[fx.Node] = []

        def read(each: fx.Node) -> Any:
            if each in self.numbers:
                inputs.append(each)
                return Given(len(inputs) - 1, self.shapes[self.numbers[each]])
            if each in self.pending:
                raise NotProvable(f"{each.target} is read as a whole")
            return self.known[each]

        args = fx.node.map_arg(node_args, read)
        kwargs = fx.node.map_arg(node_kwargs, read)
        rule = RULES.get(target)
        if rule is None:
            raise NotProvable(f"there are no bounds of the operation {_name(target)}")
        if not isinstance(value, Tensor) or value.ndim < 1 or len(value) != _TRACED:
            raise NotProvable(f"{_name(target)} mixes images")
        shape = value.shape[1:]
        found = rule(args, kwargs, shape, part)
        if found is None:
            raise NotProvable(f"there are no bounds of {_name(target)} as it is used here")
        numbers = tuple(self.numbers[each] for each in inputs)
        self.steps.append(Placed(found, numbers, shape))
        self.shapes.append(shape)
        self.numbers[node] = len(self.steps)


def _attribute(module: nn.Module, name: str) -> Any:
    value: Any = module
    for part in name.split("."):
        value = getattr(value, part)
    return value.detach() if isinstance(value, Tensor) else value


def _name(target: Any) -> str:
    return str(target).removeprefix("aten.").split(".")[0]
