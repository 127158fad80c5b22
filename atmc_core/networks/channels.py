"""Which channels of a network go together: what reads, norms and adds what, read off its graph.

A convolution's or linear's output channel is an atom. Element-wise operations join the channels
they put together (a residual sum ties the streams it adds), so channels come in classes that can
only be kept or dropped as one. What the walk does not know ties its channels down: they stay.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

Layer = nn.Conv2d | nn.Linear


@dataclass(frozen=True)
class Flow:
    """The channels of one intermediate result.

    Attributes:
        atoms: of each channel, int64 ``[C]``; None if unknown.
        values: what a channel holds everywhere, whatever the image; NaN if it varies, ``[C]``.
        flat: whether the channels are the last axis, each perhaps several times in a row.
    """

    atoms: Tensor | None
    values: Tensor
    flat: bool = False


@dataclass(frozen=True)
class Reader:
    """A convolution or linear layer in the graph.

    Attributes:
        outputs: classes of its output channels, ``[out]``.
        inputs: classes of its input channels, ``[in]``; -1 where they are not known.
        values: what the input channels hold, as in ``Flow``.
    """

    name: str
    layer: Layer
    outputs: Tensor
    inputs: Tensor
    values: Tensor

    @property
    def depthwise(self) -> bool:
        """Whether each output channel reads the input channel of its own class alone."""
        return _is_depthwise(self.layer)


@dataclass(frozen=True)
class ChannelGraph:
    """The channel classes of a network.

    Attributes:
        count: number of classes, which are numbered from 0 in the order of the layers.
        pinned: classes that must stay, bool ``[count]``.
        norms: batch norms by name, with the classes of their channels.
    """

    count: int
    pinned: Tensor
    readers: list[Reader]
    norms: dict[str, Tensor]


def channel_graph(network: nn.Module) -> ChannelGraph | None:
    """Walk through a network in evaluation mode; None if it cannot be traced.

    Convolutions and linears that run more than once are tied down.
    """
    try:
        graph = fx.Tracer().trace(network)
    except (fx.proxy.TraceError, TypeError, ValueError, AttributeError, RuntimeError):
        return None
    walk = _Walk(dict(network.named_modules()))
    walk.run(graph)
    return walk.graph()


class _Walk:
    """The state of a walk: atoms so far, which of them are joined, and what was met."""

    def __init__(self, modules: dict[str, nn.Module]) -> None:
        self.modules = modules
        self.parents: list[int] = []
        self.tied: set[int] = set()
        self.readers: dict[str, Reader] = {}
        self.norms: dict[str, Tensor] = {}
        self.flows: dict[fx.Node, Flow] = {}

    def run(self, graph: fx.Graph) -> None:
        for node in graph.nodes:
            flow = self._visit(node)
            if flow is None:
                self._tie(*(self.flows[n] for n in node.all_input_nodes if n in self.flows))
                flow = Flow(None, torch.zeros(0))
            self.flows[node] = flow

    def graph(self) -> ChannelGraph:
        roots = [self._root(atom) for atom in range(len(self.parents))]
        order = {root: number for number, root in enumerate(dict.fromkeys(roots))}
        # One more at the end: what is unknown is numbered -1 and stays so.
        numbers = torch.tensor([*(order[root] for root in roots), -1])
        pinned = torch.zeros(len(order), dtype=torch.bool)
        for atom in self.tied:
            pinned[numbers[atom]] = True
        readers = [
            replace(r, outputs=numbers[r.outputs], inputs=numbers[r.inputs])
            for r in self.readers.values()
        ]
        norms = {name: numbers[atoms] for name, atoms in self.norms.items()}
        return ChannelGraph(len(order), pinned, readers, norms)

    def _visit(self, node: fx.Node) -> Flow | None:
        """What the node makes; None if unknown."""
        given = [self.flows[n] for n in node.all_input_nodes]
        if node.op == "call_module":
            return self._module(str(node.target), given[0]) if len(given) == 1 else None
        if node.op in ("call_function", "call_method"):
            return self._function(node, given)
        return None

    def _module(self, name: str, flow: Flow) -> Flow | None:
        module = self.modules[name]
        if isinstance(module, nn.Conv2d | nn.Linear):
            return self._layer(name, module, flow)
        if isinstance(module, nn.BatchNorm2d):
            if flow.atoms is None or name in self.norms or module.running_mean is None:
                if name in self.norms:
                    self._tie(Flow(self.norms[name], flow.values))
                return None
            self.norms[name] = flow.atoms
            return replace(flow, values=_normed(module, flow.values))
        if isinstance(module, nn.Flatten):
            return replace(flow, flat=True) if module.start_dim == 1 else None
        return _mapped(_MODULES.get(type(module)), module, flow)

    def _layer(self, name: str, layer: Layer, flow: Flow) -> Flow | None:
        repeat = layer.weight.shape[1] if isinstance(layer, nn.Linear) else layer.in_channels
        inputs, values = torch.full((repeat,), -1), torch.full((repeat,), torch.nan)
        fits = flow.atoms is not None and flow.flat == isinstance(layer, nn.Linear)
        if fits and flow.atoms is not None and repeat % len(flow.atoms) == 0:
            times = repeat // len(flow.atoms)
            inputs, values = (x.repeat_interleave(times) for x in (flow.atoms, flow.values))
        else:
            self._tie(flow)
        if _is_depthwise(layer) and (inputs >= 0).all():
            outputs = inputs
        else:
            outputs = self._new(layer.weight.shape[0])
            if isinstance(layer, nn.Conv2d) and layer.groups > 1:
                self._tie(flow, Flow(outputs, values))
        if name in self.readers:
            self._tie(flow, Flow(outputs, values), Flow(self.readers[name].outputs, values))
            return Flow(outputs, torch.full((len(outputs),), torch.nan), flow.flat)
        self.readers[name] = Reader(name, layer, outputs, inputs, values)
        return Flow(outputs, emitted(layer, values), isinstance(layer, nn.Linear))

    def _function(self, node: fx.Node, given: list[Flow]) -> Flow | None:
        target = node.target
        if target == "size":
            return Flow(None, torch.zeros(0))
        if target in ("view", "reshape"):
            given = given[:1]
        if target in _PAIRS and len(given) == 2:
            return self._pair(_PAIRS[target], *given)
        if len(given) != 1:
            return None
        flow, arguments = given[0], node.args[1:]
        if target in (torch.flatten, "flatten") and (*arguments, *node.kwargs.values()) == (1,):
            return replace(flow, flat=True)
        if target in ("view", "reshape") and len(arguments) == 2 and arguments[1] == -1:
            return replace(flow, flat=True)
        if target in (torch.mean, "mean") and not flow.flat:
            return _pooled(flow, node)
        return _mapped(_FUNCTIONS.get(target), None, flow)

    def _pair(self, combine: Callable[[Tensor, Tensor], Tensor], a: Flow, b: Flow) -> Flow | None:
        if a.atoms is None or b.atoms is None or a.flat != b.flat or len(a.atoms) != len(b.atoms):
            return None
        for one, other in zip(a.atoms.tolist(), b.atoms.tolist(), strict=True):
            self.parents[self._root(one)] = self._root(other)
        return replace(a, values=combine(a.values, b.values))

    def _new(self, count: int) -> Tensor:
        first = len(self.parents)
        self.parents.extend(range(first, first + count))
        return torch.arange(first, first + count)

    def _root(self, atom: int) -> int:
        while self.parents[atom] != atom:
            self.parents[atom] = self.parents[self.parents[atom]]
            atom = self.parents[atom]
        return atom

    def _tie(self, *flows: Flow) -> None:
        for flow in flows:
            if flow.atoms is not None:
                self.tied.update(flow.atoms.tolist())


def _is_depthwise(layer: Layer) -> bool:
    return (
        isinstance(layer, nn.Conv2d)
        and layer.groups == layer.in_channels == layer.out_channels
        and layer.groups > 1
    )


def pads(layer: Layer) -> bool:
    """Whether a layer reads zeros (or anything else) beyond its input's border."""
    return isinstance(layer, nn.Conv2d) and (
        isinstance(layer.padding, str) or any(layer.padding) or layer.padding_mode != "zeros"
    )


def kernels(layer: Layer) -> Tensor:
    """The weight as ``[out, in, kernel area]``, float64, on the CPU."""
    weight = layer.weight.detach().cpu().double()
    return weight.reshape(*weight.shape[:2], -1)


@torch.no_grad()
def emitted(layer: Layer, values: Tensor) -> Tensor:
    """What a layer's output channels hold, given what its input channels hold (NaN: varies)."""
    weight = kernels(layer)
    if isinstance(layer, nn.Conv2d) and layer.groups > 1:
        if not _is_depthwise(layer):
            return torch.full((len(weight),), torch.nan)
        weight = torch.diag_embed(weight[:, 0].T).permute(1, 2, 0)
    # At the border a padded layer sees zeros in the place of a constant.
    known = ~values.isnan() & ((values == 0) | torch.tensor(not pads(layer)))
    varies = ((weight != 0).any(2) & ~known).any(1)
    total = weight.sum(2) @ torch.where(known, values.double(), 0)
    if layer.bias is not None:
        total = total + layer.bias.detach().cpu().double()
    return torch.where(varies, torch.nan, total).float()


@torch.no_grad()
def _normed(norm: nn.BatchNorm2d, values: Tensor) -> Tensor:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean, variance = norm.running_mean.cpu().double(), norm.running_var.cpu().double()
    scaled = (values.double() - mean) / (variance + norm.eps).sqrt()
    if norm.affine:
        gain, bias = norm.weight.detach().cpu().double(), norm.bias.detach().cpu().double()
        # Without gain the channel holds the bias, whatever comes in.
        scaled = torch.where(gain == 0, bias, scaled * gain + bias)
    return scaled.float()


def _pooled(flow: Flow, node: fx.Node) -> Flow | None:
    axes = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    keep = node.kwargs.get("keepdim", node.args[2] if len(node.args) > 2 else False)
    if not isinstance(axes, list | tuple) or {int(str(a)) % 4 for a in axes} != {2, 3}:
        return None
    return replace(flow, flat=not keep)


def _mapped(
    function: Callable[[Any, Tensor], Tensor] | None, module: nn.Module | None, flow: Flow
) -> Flow | None:
    """A flow whose channels each go through a function of their own."""
    if function is None or flow.atoms is None:
        return None
    return replace(flow, values=function(module, flow.values))


def _same(module: Any, values: Tensor) -> Tensor:
    return values


def _average(module: Any, values: Tensor) -> Tensor:
    # Padded zeros pull a constant down at the border.
    padded = module.padding not in (0, (0, 0))
    return torch.where(values == 0, values, torch.nan) if padded else values


def _call(module: Any, values: Tensor) -> Tensor:
    result: Tensor = module(values)
    return result


_MODULES: dict[type[nn.Module], Callable[[Any, Tensor], Tensor]] = {
    nn.Identity: _same,
    nn.Dropout: _same,
    nn.Dropout2d: _same,
    nn.MaxPool2d: _same,
    nn.AdaptiveAvgPool2d: _same,
    nn.AdaptiveMaxPool2d: _same,
    nn.AvgPool2d: _average,
    nn.ReLU: lambda module, values: values.relu(),
    **dict.fromkeys(
        (nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.GELU, nn.Hardswish, nn.Sigmoid, nn.Tanh), _call
    ),
}
_FUNCTIONS: dict[Any, Callable[[Any, Tensor], Tensor]] = {
    function: lambda module, values: values.relu()
    for function in (F.relu, torch.relu, "relu", "relu_")
}
_PAIRS: dict[Any, Callable[[Tensor, Tensor], Tensor]] = {
    operator.add: torch.add,
    operator.iadd: torch.add,
    torch.add: torch.add,
    operator.mul: torch.mul,
    torch.mul: torch.mul,
}
