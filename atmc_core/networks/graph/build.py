"""Builds a trainable module from a graph.

Layers become modules such as ``nn.Conv2d`` and ``nn.Linear``, so that other code can find them.
"""

from functools import cache
from typing import Any

import torch
from torch import fx, nn

from atmc_core.errors import InvalidInput
from atmc_core.networks.graph.ir import Graph, Node
from atmc_core.networks.graph.ops import BUFFER, FUNCTIONS, MODULES, NUMBER, PARAMETER

# The largest number of elements of a parameter or a buffer, to refuse absurd sizes in a file.
_MAX_ELEMENTS = 2**28


def build_module(graph: Graph) -> fx.GraphModule:
    """Build the network of a graph, with PyTorch's initial weights.

    Returns:
        A module that maps images ``[N, C, H, W]`` to logits ``[N, classes]``.

    Raises:
        InvalidInput: ``malformed_model`` if an operation or an option is not known.
    """
    root = nn.Module()
    built = fx.Graph()
    images = built.placeholder("images")
    values: list[Any] = []
    for index, node in enumerate(graph.nodes):
        inputs = [images if each < 0 else values[each] for each in node.inputs]
        try:
            values.append(_emit(root, built, node, inputs))
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            if isinstance(error, InvalidInput):
                raise
            raise InvalidInput(
                "malformed_model", f"node {index} ({node.op} {node.name!r}): {error}", "model"
            ) from error
    built.output(values[-1])
    return fx.GraphModule(root, built)


@cache
def reserved_names() -> frozenset[str]:
    """The names that no module or tensor of a graph may begin with: ``fx.GraphModule`` has them."""
    own = set(dir(fx.GraphModule(nn.Module(), fx.Graph()))) - set(dir(nn.Module()))
    return frozenset({*own, "self"})


def _emit(root: nn.Module, built: fx.Graph, node: Node, inputs: list[Any]) -> Any:
    if node.op == NUMBER:
        return float(node.options["value"])
    if node.op in (PARAMETER, BUFFER):
        _place(root, node.name, _tensor(node))
        return built.get_attr(node.name)
    if node.op in MODULES:
        (tensor,) = inputs
        name = node.name or f"{node.op}_{len(built.nodes)}"
        _place(root, name, MODULES[node.op](node.options))
        return built.call_module(name, (tensor,))
    if node.op not in FUNCTIONS:
        raise ValueError("the operation is not known")
    function, arity = FUNCTIONS[node.op]
    if arity is not None and len(inputs) != arity:
        raise ValueError(f"{len(inputs)} inputs, {arity} expected")
    return built.call_function(function, tuple(inputs), dict(node.options))


def _tensor(node: Node) -> nn.Parameter | torch.Tensor:
    shape = torch.Size(node.options["shape"])
    if min(shape, default=1) < 0 or shape.numel() > _MAX_ELEMENTS:
        raise ValueError(f"a tensor of {list(shape)}")
    zeros = torch.zeros(shape)
    return nn.Parameter(zeros) if node.op == PARAMETER else zeros


def _place(root: nn.Module, name: str, item: nn.Module | nn.Parameter | torch.Tensor) -> None:
    """Register a module or a tensor under its dotted name."""
    *path, last = name.split(".")
    if (*path, last)[0] in reserved_names():
        raise ValueError(f"the name {name!r} is reserved")
    parent = root
    for part in path:
        child = parent._modules.get(part)
        if child is None:
            child = nn.Module()
            parent.add_module(part, child)
        parent = child
    if isinstance(item, nn.Module):
        parent.add_module(last, item)
    elif isinstance(item, nn.Parameter):
        parent.register_parameter(last, item)
    else:
        parent.register_buffer(last, item)
