"""A network as a list of steps that have bounds.

The network is run once on a few images, and PyTorch's own operations are recorded as they come
(``make_fx``), whichever module, function or ONNX graph calls them. What does not depend on the
images is computed then and there.
"""

import copy
import itertools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

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

    @property
    def returned(self) -> torch.Size:
        """The shape of an image's logits."""
        return self.steps[self.output - 1].shape if self.output else self.shape

    def run(self, images: Tensor) -> Tensor:
        """Compute the logits, ``[N, classes]``, as the network does."""
        values = [images]
        for placed in self.steps:
            values.append(placed.step.run(*(values[i] for i in placed.inputs)))
        return values[self.output]

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
        with torch.no_grad():
            own = copy.deepcopy(network).eval().to(dtype).requires_grad_(False)
            return Trace(own, shape).program()


class Trace:
    """The operations that a network runs, from which its program is made as often as needed.

    Args:
        network: maps images ``[N, C, H, W]`` to logits ``[N, classes]``, in evaluation mode. The
            programs read its tensors as they are when they are made, and are differentiable in
            them.
        shape: that of an image, ``(C, H, W)``.

    Raises:
        NotProvable: if the network cannot be traced.
    """

    def __init__(self, network: nn.Module, shape: Sequence[int]) -> None:
        held = next(itertools.chain(network.parameters(), network.buffers()), torch.empty(0))
        images = torch.rand(_TRACED, *shape, dtype=held.dtype, device=held.device)
        try:
            with torch.no_grad():
                self.module = make_fx(functionalize(network))(images)
                self.module.graph.eliminate_dead_code()
                self.shapes = _Shapes(self.module).found(images)
                again = network(images), self.module(images)
        except Exception as error:  # whatever a network of somebody's own may raise
            raise NotProvable(f"the network cannot be traced: {error}") from error
        if not all(isinstance(each, Tensor) for each in again):
            raise NotProvable("the network returns something else than logits")
        # A program has the numbers that were drawn once, and would prove these alone.
        if not torch.allclose(*again, equal_nan=True):
            raise NotProvable("the network returns something else each time: it draws at random")

    def program(self, instead: Mapping[int, Tensor] | None = None) -> Program:
        """The network's steps, with its tensors of now.

        Args:
            instead: tensors that stand in for some of the network's, by the address of its data
                (``data_ptr``).

        Raises:
            NotProvable: if the network has an operation without a bound.
        """
        return _Reader(self.module, self.shapes, instead or {}).program()


class _Shapes(fx.Interpreter):
    """Runs a graph to see the shapes of all its values; None for what is no tensor."""

    def found(self, images: Tensor) -> dict[fx.Node, torch.Size | None]:
        self.shapes: dict[fx.Node, torch.Size | None] = {}
        self.run(images)
        return self.shapes

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        self.shapes[n] = value.shape if isinstance(value, Tensor) else None
        return value


class _Reader:
    """Turns a traced graph into steps."""

    def __init__(
        self,
        module: fx.GraphModule,
        shapes: dict[fx.Node, torch.Size | None],
        instead: Mapping[int, Tensor],
    ) -> None:
        self.module, self.shapes, self.instead = module, shapes, instead
        self.known: dict[fx.Node, Any] = {}
        self.numbers: dict[fx.Node, int] = {}
        self.steps: list[Placed] = []
        #: Operations with several outputs, which become steps where one of these is read.
        self.pending: set[fx.Node] = set()

    def program(self) -> Program:
        for node in self.module.graph.nodes:
            if node.op == "placeholder":
                self.numbers[node] = 0
                shape = self._shape(node)
            elif node.op == "get_attr":
                held = operator.attrgetter(str(node.target))(self.module)
                if isinstance(held, Tensor):  # a graph of its own, as of a branch, has no address
                    held = self.instead.get(held.data_ptr(), held)
                self.known[node] = held
            elif node.op == "output":
                found = node.args[0]
                if found not in self.numbers:
                    raise NotProvable("the logits do not depend on the image")
                return Program(tuple(self.steps), shape, self.numbers[found])
            elif any(each in self.numbers or each in self.pending for each in node.all_input_nodes):
                self._step(node)
            else:
                assert callable(node.target)
                args: Any = fx.node.map_arg(node.args, self.known.__getitem__)
                kwargs: Any = fx.node.map_arg(node.kwargs, self.known.__getitem__)
                self.known[node] = node.target(*args, **kwargs)
        raise AssertionError("a graph ends with its output")

    def _shape(self, node: fx.Node) -> torch.Size:
        """The shape of a value, without the batch axis.

        Raises:
            NotProvable: if its first axis is not that of the images.
        """
        shape = self.shapes[node]
        if not shape or shape[0] != _TRACED:
            raise NotProvable(f"{_name(node.target)} mixes images")
        return shape[1:]

    def _step(self, node: fx.Node) -> None:
        source, part = node, None
        if node.target is operator.getitem:
            source, part = cast(tuple[fx.Node, int], node.args)
        elif self.shapes[node] is None:
            self.pending.add(node)
            return
        inputs: list[fx.Node] = []

        def read(each: fx.Node) -> Any:
            if each in self.numbers:
                inputs.append(each)
                return Given(len(inputs) - 1, self._shape(each))
            if each in self.pending:
                raise NotProvable(f"{_name(each.target)} is read as a whole")
            return self.known[each]

        args: Any = fx.node.map_arg(source.args, read)
        kwargs: Any = fx.node.map_arg(source.kwargs, read)
        rule = RULES.get(source.target)
        if rule is None:
            raise NotProvable(f"there are no bounds of the operation {_name(source.target)}")
        shape = self._shape(node)
        found = rule(args, kwargs, shape, part)
        if found is None:
            raise NotProvable(f"there are no bounds of {_name(source.target)} as it is used here")
        self.steps.append(Placed(found, tuple(self.numbers[each] for each in inputs), shape))
        self.numbers[node] = len(self.steps)


def _name(target: Any) -> str:
    return str(target).removeprefix("aten.").split(".")[0]
