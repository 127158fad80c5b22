"""The description of a network: nodes in order, as JSON, without weights and without code.

It travels in an artifact's header, so it is checked like any other input.
"""

import base64
import json
import keyword
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from atmc_core.errors import InvalidInput

#: Names become attributes of a module, and text of the Python code that torch.fx generates.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*")
_OPTION = re.compile(r"[a-z_]+")
MAX_NODES = 20_000
_MAX_NUMBER = 2**31
_MAX_TEXT = 2**24


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
        op: a name in ``atmc_core.networks.graph.ops``.
        inputs: indices of earlier nodes; 0 is the first node, -1 the images.
        options: of the operation: numbers, texts, and lists of numbers.
        name: where its tensors are in the state dict; empty if it has none.
    """

    op: str
    inputs: tuple[int, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""


@dataclass(frozen=True)
class Graph:
    """A network whose last node gives the logits.

    Attributes:
        input_shape: channels, height, width.
        input_name: of the images in the uploaded graph, and ``output_name`` of its output.
    """

    nodes: tuple[Node, ...]
    input_shape: tuple[int, int, int]
    input_name: str
    output_name: str

    def to_json(self) -> dict[str, Any]:
        """Compact: a list for each node."""
        return {
            "input": [self.input_name, *self.input_shape],
            "output": self.output_name,
            "nodes": [
                [node.op, list(node.inputs), dict(node.options), node.name] for node in self.nodes
            ],
        }

    @classmethod
    def from_json(cls, document: Any) -> "Graph":
        """The inverse of ``to_json``.

        Raises:
            InvalidInput: ``malformed_model``, if it is no description of a network.
        """
        try:
            name, channels, height, width = document["input"]
            nodes = tuple(
                Node(op, tuple(inputs), options, name)
                for op, inputs, options, name in document["nodes"]
            )
            graph = cls(nodes, (channels, height, width), name, document["output"])
        except (TypeError, ValueError, KeyError) as error:
            raise _malformed(f"not a graph: {error}") from error
        graph.check()
        return graph

    def to_text(self) -> str:
        """Its JSON, deflated, in base64: what an artifact's header carries."""
        text = json.dumps(self.to_json(), separators=(",", ":"))
        return base64.b64encode(zlib.compress(text.encode(), 9)).decode()

    @classmethod
    def from_text(cls, text: str) -> "Graph":
        """The inverse of ``to_text``; raises as ``from_json`` does."""
        try:
            inflater = zlib.decompressobj()
            content = inflater.decompress(base64.b64decode(text, validate=True), _MAX_TEXT)
            document = json.loads(content)
        except (TypeError, ValueError, zlib.error) as error:
            raise _malformed(f"not a graph: {error}") from error
        return cls.from_json(document)

    def check(self) -> None:
        """Check all that does not depend on the operations.

        Raises:
            InvalidInput: ``malformed_model``.
        """
        if not 1 <= len(self.nodes) <= MAX_NODES:
            raise _malformed(f"{len(self.nodes)} nodes; from 1 to {MAX_NODES} are possible")
        if not all(type(size) is int and 1 <= size < 2**16 for size in self.input_shape):
            raise _malformed(f"images of {list(self.input_shape)}")
        for text in (self.input_name, self.output_name):
            if not isinstance(text, str) or len(text) > 1000:
                raise _malformed("the input or the output has no name")
        names: set[str] = set()
        for index, node in enumerate(self.nodes):
            _check_node(index, node)
            if node.name and node.name in names:
                raise _malformed(f"two nodes have the name {node.name!r}")
            names.add(node.name)


def is_name(text: str) -> bool:
    """Whether a module or a parameter may have that name."""
    fits = len(text) <= 200 and _NAME.fullmatch(text) is not None
    return fits and not any(map(keyword.iskeyword, text.split(".")))


def _check_node(index: int, node: Node) -> None:
    if not all(type(each) is int and -1 <= each < index for each in node.inputs):
        raise _malformed(f"node {index} has inputs {node.inputs}, which are not before it")
    if not isinstance(node.name, str) or (node.name and not is_name(node.name)):
        raise _malformed(f"node {index} has the name {node.name!r}")
    if not isinstance(node.options, Mapping):
        raise _malformed(f"node {index} has no options")
    for key, value in node.options.items():
        values = value if isinstance(value, list | tuple) else [value]
        if not _OPTION.fullmatch(key) or len(values) > 16 or not all(map(_is_plain, values)):
            raise _malformed(f"node {index} has the option {key!r}: {str(value)[:80]}")


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= 16 and value.isidentifier()
    return isinstance(value, int | float) and abs(value) <= _MAX_NUMBER


def _malformed(reason: str) -> InvalidInput:
    return InvalidInput("malformed_model", reason, "model")
