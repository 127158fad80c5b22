"""The graph under construction: values by their ONNX names, and what each image has at each node.

Shapes are found by running every operation on PyTorch's meta device, without any numbers.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from atmc_core.errors import InvalidInput
from atmc_core.networks.graph.ir import Graph, Node, is_name
from atmc_core.networks.graph.ops import BUFFER, FUNCTIONS, MODULES, NUMBER, PARAMETER
from atmc_core.networks.onnx.document import Array, Operation, malformed

#: Stands for the size of the batch where the graph computes with shapes.
BATCH = -(2**40)
# Two images: a batch of one would hide operations that mix images.
_IMAGES = 2
# Of one image at one node: larger ones are a trap, or hopeless.
_MAX_ELEMENTS = 2**27


class Value:
    """What an image becomes at one node; ``meta`` is its shape, two images at a time."""

    def __init__(self, index: int, meta: Tensor) -> None:
        self.index = index
        self.meta = meta

    @property
    def shape(self) -> tuple[int, ...]:
        """Without the batch."""
        return tuple(self.meta.shape[1:])

    @property
    def ndim(self) -> int:
        """With the batch."""
        return self.meta.ndim


Operand = Value | Array


class GraphBuilder:
    """Collects nodes and the tensors that belong to them."""

    def __init__(self, input_shape: tuple[int, int, int]) -> None:
        self.input_shape = input_shape
        self.images = Value(-1, torch.empty(_IMAGES, *input_shape, device="meta"))
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
        """Add a module of one tensor; ``tensors`` are its weights, by their names in it."""
        options = options or {}
        if tensors:
            name = self._free_name(name, op)
            for key, array in tensors.items():
                self.tensors[f"{name}.{key}"] = torch.from_numpy(array.copy())
        self.weighted |= op in ("conv", "linear")
        with torch.device("meta"):
            meta = self._run(operation, lambda: MODULES[op](options).eval()(value.meta))
        return self._add(Node(op, (value.index,), options, name), meta)

    def function(
        self, operation: Operation, op: str, values: Sequence[Operand], **options: Any
    ) -> Value:
        """Add a function of tensors, some of which may be constants."""
        operands = [v if isinstance(v, Value) else self.constant(operation, v) for v in values]
        call, _ = FUNCTIONS[op]
        meta = self._run(operation, lambda: call(*(v.meta for v in operands), **options))
        if meta.ndim < 1 or meta.shape[0] != _IMAGES:
            raise unsupported(operation, "it mixes the images of a batch")
        return self._add(Node(op, tuple(v.index for v in operands), options), meta)

    def constant(self, operation: Operation, array: Array, name: str = "") -> Value:
        """A constant as an operand: a number, or a tensor of the network.

        It trains with the network if it comes after the first layer; what comes before, such as a
        normalisation of the images, stays as it is.
        """
        if array.size == 1 and array.ndim <= 4:
            number = Node(NUMBER, (), {"value": float(array.reshape(()))})
            return self._add(number, torch.empty((), device="meta"))
        op = PARAMETER if self.weighted else BUFFER
        name = self._free_name(name, "constant")
        self.tensors[name] = torch.from_numpy(array.astype("float32"))
        node = Node(op, (), {"shape": list(array.shape)}, name)
        return self._add(node, torch.empty(array.shape, device="meta"))

    def graph(self, output: Value, input_name: str, output_name: str) -> Graph:
        """All of it, ``output`` as the logits."""
        if output.index != len(self.nodes) - 1:
            # What follows the output is a softmax's input no longer, or dead.
            del self.nodes[output.index + 1 :]
        graph = Graph(tuple(self.nodes), self.input_shape, input_name, output_name)
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
        if meta.numel() > _IMAGES * _MAX_ELEMENTS:
            raise malformed(
                f"{operation.label} makes {list(meta.shape[1:])} of an image: too large",
                operation.label,
            )
        return meta

    def _free_name(self, wanted: str, fallback: str) -> str:
        """A name for a module or a tensor: the uploaded one if it can be used."""
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
            or bool(ancestors & self._names)
            or any(hasattr(plain, part) for part in parts)
        )


def unsupported(operation: Operation, reason: str) -> InvalidInput:
    return InvalidInput("unsupported_operator", f"{operation.label}: {reason}", operation.label)
