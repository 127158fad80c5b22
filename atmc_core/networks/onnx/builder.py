"""Builds a graph node by node from the operations of an ONNX file.

The shape of each result is found by running the operation on PyTorch's meta device, which computes
no numbers.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from atmc_core.errors import InvalidInput
from atmc_core.networks.graph.build import reserved_names
from atmc_core.networks.graph.ir import MAX_INPUT_NAME_LENGTH, Graph, Node, is_name
from atmc_core.networks.graph.ops import BUFFER, FUNCTIONS, MODULES, NUMBER, PARAMETER
from atmc_core.networks.onnx.document import Array, Operation, malformed

#: A number that stands for the size of the batch if the ONNX graph computes with shapes.
BATCH = -(2**40)
#: Shapes are computed for two images: a batch of one would hide operations that mix images.
IMAGES = 2
# The largest number of elements that one image may have at a node, to refuse absurd sizes.
_MAX_ELEMENTS = 2**27
# A constant of one element becomes a number if it has at most this many axes. With more, it would
# add axes to a result of [N, C, H, W].
_MAX_NUMBER_AXES = 4


class Value:
    """A result that depends on the images.

    Attributes:
        index: the index of the node that computes it; -1 for the images themselves.
        meta: a meta tensor with the shape that the result has for two images.
    """

    def __init__(self, index: int, meta: Tensor) -> None:
        self.index = index
        self.meta = meta

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one image's part, without the batch axis."""
        return tuple(self.meta.shape[1:])

    @property
    def ndim(self) -> int:
        """The number of axes, with the batch axis."""
        return self.meta.ndim


#: An operand of an ONNX operation: it depends on the images, or it is a constant.
Operand = Value | Array


class GraphBuilder:
    """Collects the nodes of a graph and their tensors.

    Args:
        input_shape: channels, height and width of the images.

    Attributes:
        images: the graph's input.
        nodes: the nodes so far.
        tensors: the state dict so far.
        weighted: whether a convolution or linear layer has been added.
    """

    def __init__(self, input_shape: tuple[int, int, int]) -> None:
        self.input_shape = input_shape
        self.images = Value(-1, torch.empty(IMAGES, *input_shape, device="meta"))
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}
        self.weighted = False
        self._names: set[str] = set()
        self._parts: set[str] = set()

    def module(
        self,
        operation: Operation,
        op: str,
        value: Value,
        options: dict[str, Any] | None = None,
        tensors: dict[str, Array] | None = None,
        name: str = "",
    ) -> Value:
        """Add a node that is a module of one tensor.

        Args:
            operation: the ONNX operation, for messages.
            op: the module's name in ``MODULES``.
            value: the module's input.
            options: the module's options.
            tensors: the module's weights, by their names in it.
            name: the name that the module should have; another one if it is taken.

        Raises:
            InvalidInput: ``malformed_model`` if the module does not fit the input.
        """
        options = options or {}
        if tensors:
            name = self._free_name(name, op)
            for key, array in tensors.items():
                _require_finite(operation, array)
                self.tensors[f"{name}.{key}"] = torch.from_numpy(array.copy())
        self.weighted |= op in ("conv", "linear")
        with torch.device("meta"):
            meta = self._run(operation, lambda: MODULES[op](options).eval()(value.meta))
        return self._add(Node(op, (value.index,), options, name), meta)

    def function(
        self, operation: Operation, op: str, values: Sequence[Operand], **options: Any
    ) -> Value:
        """Add a node that is a function of tensors.

        Args:
            operation: the ONNX operation, for messages.
            op: the function's name in ``FUNCTIONS``.
            values: the function's inputs, some of which may be constants.
            options: the function's options.

        Raises:
            InvalidInput: ``malformed_model`` if the operands do not fit; ``unsupported_operator``
                if the result mixes the images of a batch.
        """
        operands = [v if isinstance(v, Value) else self.constant(operation, v) for v in values]
        call, _ = FUNCTIONS[op]
        meta = self._run(operation, lambda: call(*(v.meta for v in operands), **options))
        if meta.ndim < 1 or meta.shape[0] != IMAGES:
            raise unsupported(operation, "it mixes the images of a batch")
        return self._add(Node(op, tuple(v.index for v in operands), options), meta)

    def constant(self, operation: Operation, array: Array, name: str = "") -> Value:
        """Add a constant as a node: a number, or a tensor of the network.

        A tensor is trained with the network if it comes after the first layer. A tensor that comes
        before, such as a normalisation of the images, stays as it is.
        """
        _require_finite(operation, array)
        if array.size == 1 and array.ndim <= _MAX_NUMBER_AXES:
            number = Node(NUMBER, (), {"value": float(array.reshape(()))})
            return self._add(number, torch.empty((), device="meta"))
        op = PARAMETER if self.weighted else BUFFER
        name = self._free_name(name, "constant")
        self.tensors[name] = torch.from_numpy(array.astype("float32"))
        node = Node(op, (), {"shape": list(array.shape)}, name)
        return self._add(node, torch.empty(array.shape, device="meta"))

    def graph(self, output: Value, input_name: str, output_name: str) -> Graph:
        """The finished graph, with ``output`` as the logits; too long names are replaced."""
        nodes = _used_nodes(self.nodes, output.index)
        if len(input_name) > MAX_INPUT_NAME_LENGTH:
            input_name = "images" if output_name != "images" else "inputs"
        if len(output_name) > MAX_INPUT_NAME_LENGTH:
            output_name = "logits" if input_name != "logits" else "outputs"
        graph = Graph(tuple(nodes), self.input_shape, input_name, output_name)
        graph.check()
        return graph

    def _add(self, node: Node, meta: Tensor) -> Value:
        self.nodes.append(node)
        return Value(len(self.nodes) - 1, meta)

    def _run(self, operation: Operation, call: Any) -> Tensor:
        try:
            with torch.no_grad():
                meta: Tensor = call()
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise malformed(f"{operation.label}: {error}", operation.label) from error
        if meta.numel() > IMAGES * _MAX_ELEMENTS:
            raise malformed(
                f"{operation.label} makes {list(meta.shape[1:])} of an image: too large",
                operation.label,
            )
        return meta

    def _free_name(self, wanted: str, fallback: str) -> str:
        """A name for a module or a tensor: ``wanted`` if it is valid and free."""
        if not is_name(wanted) or self._is_taken(wanted):
            number = len(self.nodes)
            while self._is_taken(f"{fallback}_{number}"):
                number += 1
            wanted = f"{fallback}_{number}"
        self._names.add(wanted)
        parts = wanted.split(".")
        self._parts |= {".".join(parts[:end]) for end in range(1, len(parts))}
        return wanted

    def _is_taken(self, name: str) -> bool:
        parts = name.split(".")
        ancestors = {".".join(parts[:end]) for end in range(1, len(parts) + 1)}
        plain = nn.Module()
        return (
            name in self._parts
            or parts[0] in reserved_names()
            or bool(ancestors & self._names)
            or any(hasattr(plain, part) for part in parts)
        )


def _used_nodes(nodes: Sequence[Node], output: int) -> list[Node]:
    """The nodes that an output is computed from; the last of them is the output."""
    used = {output} - {-1}
    for index in range(output, -1, -1):
        if index in used:
            used.update(each for each in nodes[index].inputs if each >= 0)
    places = {old: new for new, old in enumerate(sorted(used))}
    return [
        replace(nodes[old], inputs=tuple(places.get(each, -1) for each in nodes[old].inputs))
        for old in places
    ]


def _require_finite(operation: Operation, array: Array) -> None:
    if not np.isfinite(array).all():
        raise InvalidInput(
            "non_finite_weights",
            f"{operation.label}: its constant holds NaN or infinite values",
            operation.label,
        )


def unsupported(operation: Operation, reason: str) -> InvalidInput:
    """The error for an operation that cannot be imported."""
    return InvalidInput("unsupported_operator", f"{operation.label}: {reason}", operation.label)
