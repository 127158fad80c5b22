"""Finds the channels of a network that can only be kept or dropped together.

Each output channel of a convolution or linear layer is an atom. An element-wise operation of two
tensors joins the channels that it combines (a residual sum joins the channels of its branches), so
the atoms form classes that are kept or dropped as a whole. The classes are found by a walk through
the network's traced graph. Channels that enter an operation which the walk does not know are
pinned: they cannot be dropped.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

Layer = nn.Conv2d | nn.Linear
Norm = nn.BatchNorm2d | nn.BatchNorm1d


@dataclass(frozen=True)
class Flow:
    """The channels of one intermediate result.

    Attributes:
        atoms: the atom of each channel, int64 ``[C]``; None if unknown.
        values: for each channel the constant that all its entries have for every image, or NaN if
            they vary, float32 ``[C]``.
        flat: whether the result has been flattened to ``[N, features]``; then each channel is one
            or several consecutive features.
        matrix: whether the result surely has two axes. That of a linear layer may have more, of
            which the last one is its channels, but a norm's the second.
    """

    atoms: Tensor | None
    values: Tensor
    flat: bool = False
    matrix: bool = False


@dataclass(frozen=True)
class Reader:
    """A convolution or linear layer in the graph.

    Attributes:
        name: the layer's name in the network.
        layer: the layer.
        outputs: the class of each output channel, int64 ``[out]``.
        inputs: the class of each input channel, int64 ``[in]``; -1 if it is not known.
        values: the constant that each input channel has, or NaN, ``[in]``; see ``Flow``.
    """

    name: str
    layer: Layer
    outputs: Tensor
    inputs: Tensor
    values: Tensor

    @property
    def depthwise(self) -> bool:
        """Whether each output channel reads only the input channel of its own class."""
        return _is_depthwise(self.layer)


@dataclass(frozen=True)
class ChannelGraph:
    """The channel classes of a network.

    Attributes:
        count: the number of classes; they are numbered from 0 in the order of the layers.
        pinned: whether each class must stay, bool ``[count]``.
        readers: the convolution and linear layers, in the order of the graph.
        norms: for each batch norm by name, the classes of its channels, int64 ``[C]``.
    """

    count: int
    pinned: Tensor
    readers: list[Reader]
    norms: dict[str, Tensor]


def channel_graph(network: nn.Module) -> ChannelGraph | None:
    """Find the channel classes of a network in evaluation mode.

    The channels of convolutions and linear layers that run more than once are pinned.

    Args:
        network: maps images ``[N, C, H, W]`` to logits ``[N, classes]``.

    Returns:
        The classes, or None if ``torch.fx`` cannot trace the network.
    """
    try:
        graph = fx.Tracer().trace(network)
    except Exception:  # whatever a network of somebody's own may raise at what is no tensor
        return None
    walk = _Walk(dict(network.named_modules()))
    walk.run(graph)
    return walk.graph()


class _Walk:
    """The state of a walk: the atoms so far, which of them are joined, and the layers met.

    Joined atoms form trees (a union-find structure): ``parents`` has the parent of each atom.
    """

    def __init__(self, modules: dict[str, nn.Module]) -> None:
        self.modules = modules
        self.parents: list[int] = []
        self.pinned: set[int] = set()
        self.readers: dict[str, Reader] = {}
        self.norms: dict[str, Tensor] = {}
        self.flows: dict[fx.Node, Flow] = {}

    def run(self, graph: fx.Graph) -> None:
        """Visit all nodes in order."""
        for node in graph.nodes:
            flow = self._visit(node)
            if flow is None:
                self._pin(*(self.flows[n] for n in node.all_input_nodes if n in self.flows))
                flow = Flow(None, torch.zeros(0))
            self.flows[node] = flow

    def graph(self) -> ChannelGraph:
        """The result: atoms are replaced by the numbers of their classes."""
        roots = [self._root(atom) for atom in range(len(self.parents))]
        order = {root: number for number, root in enumerate(dict.fromkeys(roots))}
        # Unknown atoms are -1, which indexes the additional last entry, so they stay -1.
        numbers = torch.tensor([*(order[root] for root in roots), -1])
        pinned = torch.zeros(len(order), dtype=torch.bool)
        for atom in self.pinned:
            pinned[numbers[atom]] = True
        readers = [
            replace(r, outputs=numbers[r.outputs], inputs=numbers[r.inputs])
            for r in self.readers.values()
        ]
        norms = {name: numbers[atoms] for name, atoms in self.norms.items()}
        return ChannelGraph(len(order), pinned, readers, norms)

    def _visit(self, node: fx.Node) -> Flow | None:
        """The channels of the node's result; None if they are not known."""
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
        if isinstance(module, Norm):
            fits = (
                flow.atoms is not None
                and len(flow.atoms) == module.num_features
                and flow.matrix == isinstance(module, nn.BatchNorm1d)
            )
            if not fits or name in self.norms or module.running_mean is None:
                if name in self.norms:
                    self._pin(Flow(self.norms[name], flow.values))
                return None
            assert flow.atoms is not None
            self.norms[name] = flow.atoms
            return replace(flow, values=_normed(module, flow.values))
        if isinstance(module, nn.Flatten):
            return _flattened(flow) if module.start_dim == 1 else None
        return _mapped(_MODULES.get(type(module)), module, flow)

    def _layer(self, name: str, layer: Layer, flow: Flow) -> Flow | None:
        repeat = layer.weight.shape[1] if isinstance(layer, nn.Linear) else layer.in_channels
        inputs, values = torch.full((repeat,), -1), torch.full((repeat,), torch.nan)
        fits = flow.atoms is not None and flow.flat == isinstance(layer, nn.Linear)
        if fits and flow.atoms is not None and repeat % len(flow.atoms) == 0:
            times = repeat // len(flow.atoms)
            inputs, values = (x.repeat_interleave(times) for x in (flow.atoms, flow.values))
        else:
            self._pin(flow)
        if _is_depthwise(layer) and (inputs >= 0).all():
            outputs = inputs
        else:
            outputs = self._new(layer.weight.shape[0])
            if isinstance(layer, nn.Conv2d) and layer.groups > 1:
                self._pin(flow, Flow(outputs, values))
        if name in self.readers:
            self._pin(flow, Flow(outputs, values), Flow(self.readers[name].outputs, values))
            return Flow(outputs, torch.full((len(outputs),), torch.nan), flow.flat, flow.matrix)
        self.readers[name] = Reader(name, layer, outputs, inputs, values)
        return Flow(outputs, emitted(layer, values), isinstance(layer, nn.Linear), flow.matrix)

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
            return _flattened(flow)
        if target in ("view", "reshape") and len(arguments) == 2 and arguments[1] == -1:
            return _flattened(flow)
        if target in (torch.mean, "mean") and not flow.flat:
            return _pooled(flow, node)
        return _mapped(_FUNCTIONS.get(target), None, flow)

    def _pair(self, combine: Callable[[Tensor, Tensor], Tensor], a: Flow, b: Flow) -> Flow | None:
        """The result of an element-wise operation of two tensors, whose channels it joins."""
        if a.atoms is None or b.atoms is None or a.flat != b.flat or len(a.atoms) != len(b.atoms):
            return None
        for one, other in zip(a.atoms.tolist(), b.atoms.tolist(), strict=True):
            self.parents[self._root(one)] = self._root(other)
        return replace(a, values=combine(a.values, b.values))

    def _new(self, count: int) -> Tensor:
        """``count`` new atoms, int64 ``[count]``."""
        first = len(self.parents)
        self.parents.extend(range(first, first + count))
        return torch.arange(first, first + count)

    def _root(self, atom: int) -> int:
        """The atom that stands for the class of ``atom``; shortens the path to it on the way."""
        while self.parents[atom] != atom:
            self.parents[atom] = self.parents[self.parents[atom]]
            atom = self.parents[atom]
        return atom

    def _pin(self, *flows: Flow) -> None:
        for flow in flows:
            if flow.atoms is not None:
                self.pinned.update(flow.atoms.tolist())


def _is_depthwise(layer: Layer) -> bool:
    return (
        isinstance(layer, nn.Conv2d)
        and layer.groups == layer.in_channels == layer.out_channels
        and layer.groups > 1
    )


def pads(layer: Layer) -> bool:
    """Whether a layer pads its input, with zeros or with anything else."""
    return isinstance(layer, nn.Conv2d) and (
        isinstance(layer.padding, str) or any(layer.padding) or layer.padding_mode != "zeros"
    )


def kernels(layer: Layer) -> Tensor:
    """The layer's weight as ``[out, in, kernel area]``, float64, on the CPU."""
    weight = layer.weight.detach().cpu().double()
    return weight.reshape(*weight.shape[:2], -1)


@torch.no_grad()
def emitted(layer: Layer, values: Tensor) -> Tensor:
    """The constants that a layer's output channels have, given those of its input channels.

    Args:
        layer: a convolution or linear layer.
        values: the constant of each input channel, NaN if it varies, ``[in]``.

    Returns:
        The constant of each output channel, NaN if it varies, float32 ``[out]`` on the CPU.
    """
    weight = kernels(layer)
    if isinstance(layer, nn.Conv2d) and layer.groups > 1:
        if not _is_depthwise(layer):
            return torch.full((len(weight),), torch.nan)
        weight = torch.diag_embed(weight[:, 0].T).permute(1, 2, 0)
    # A padded layer reads zeros beyond the border, so there its input is constant only if it is 0.
    known = ~values.isnan() & ((values == 0) | torch.tensor(not pads(layer)))
    varies = ((weight != 0).any(2) & ~known).any(1)
    total = weight.sum(2) @ torch.where(known, values.double(), 0)
    if layer.bias is not None:
        total = total + layer.bias.detach().cpu().double()
    return torch.where(varies, torch.nan, total).float()


@torch.no_grad()
def _normed(norm: Norm, values: Tensor) -> Tensor:
    """The constants of the channels (NaN: varies) after a batch norm in evaluation mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean, variance = norm.running_mean.cpu().double(), norm.running_var.cpu().double()
    scaled = (values.double() - mean) / (variance + norm.eps).sqrt()
    if norm.affine:
        gain, bias = norm.weight.detach().cpu().double(), norm.bias.detach().cpu().double()
        # With a gain of zero the channel is the bias, whatever its input is.
        scaled = torch.where(gain == 0, bias, scaled * gain + bias)
    return scaled.float()


def _pooled(flow: Flow, node: fx.Node) -> Flow | None:
    """The result of a mean over height and width; None for a mean over other axes."""
    axes = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    keep = node.kwargs.get("keepdim", node.args[2] if len(node.args) > 2 else False)
    if not isinstance(axes, list | tuple) or {int(str(a)) % 4 for a in axes} != {2, 3}:
        return None
    return flow if keep else _flattened(flow)


def _flattened(flow: Flow) -> Flow:
    return replace(flow, flat=True, matrix=True)


def _mapped(
    function: Callable[[Any, Tensor], Tensor] | None, module: nn.Module | None, flow: Flow
) -> Flow | None:
    """The result of a function that maps each channel by itself."""
    if function is None or flow.atoms is None:
        return None
    return replace(flow, values=function(module, flow.values))


def _same(module: Any, values: Tensor) -> Tensor:
    return values


def _average(module: Any, values: Tensor) -> Tensor:
    # Zeros of the padding count in the average, so at the border a constant changes unless it is 0.
    padded = module.padding not in (0, (0, 0))
    return torch.where(values == 0, values, torch.nan) if padded else values


def _call(module: Any, values: Tensor) -> Tensor:
    result: Tensor = module(values)
    return result


# Modules, functions and element-wise operations that the walk knows, with what they do to the
# constants of channels.
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
        (
            nn.ReLU6,
            nn.Hardtanh,
            nn.LeakyReLU,
            nn.SiLU,
            nn.GELU,
            nn.Hardswish,
            nn.Hardsigmoid,
            nn.Sigmoid,
            nn.Tanh,
        ),
        _call,
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
