"""The description of a network as a list of nodes, without weights and without code.

It is read from the headers of artifacts, so it is checked like any other input.
"""

import base64
import json
import keyword
import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from atmc_core.errors import InvalidInput

# Names become attributes of a module, and part of the Python code that torch.fx generates.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*")
_MAX_NAME_LENGTH = 200
_OPTION = re.compile(r"[a-z_]+")
#: The largest number of nodes of a graph.
MAX_NODES = 20_000
# The largest height, width or number of channels of the images is below this.
_MAX_IMAGE_SIZE = 2**16
#: The longest name of the input or the output. These names come from the uploaded file and are not
#: used in code.
MAX_INPUT_NAME_LENGTH = 1000
# The limits of an option: its magnitude if it is a whole number (a size) or any other number (a
# float32), its length if it is a text, and the number of its items if it is a list.
_MAX_WHOLE, _MAX_OPTION_LENGTH, _MAX_ITEMS = 2**31, 16, 16
#: The largest number that a float32 holds.
MAX_FLOAT = (2 - 2**-23) * 2.0**127
# The largest size of a graph's JSON, in bytes.
_MAX_JSON_BYTES = 2**24


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
        op: the operation's name in ``atmc_core.networks.graph.ops``.
        inputs: the indices of the earlier nodes that the operation reads; -1 is the images.
        options: the operation's options: numbers, texts, and lists of numbers.
        name: the name of the module or tensor in the network; empty if it has no tensors.
    """

    op: str
    inputs: tuple[int, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""


@dataclass(frozen=True)
class Graph:
    """A network, described node by node.

    Attributes:
        nodes: the operations, in running order; the last one computes the logits.
        input_shape: channels, height and width of the images.
        input_name: the name of the images in the uploaded file.
        output_name: the name of the output in the uploaded file.
    """

    nodes: tuple[Node, ...]
    input_shape: tuple[int, int, int]
    input_name: str
    output_name: str

    def to_json(self) -> dict[str, Any]:
        """The graph as JSON, in a compact form with a list for each node."""
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
            InvalidInput: ``malformed_model`` if the document does not describe a network.
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
        """The graph's JSON, deflated and in base64, as an artifact's header contains it."""
        text = json.dumps(self.to_json(), separators=(",", ":"))
        return base64.b64encode(zlib.compress(text.encode(), 9)).decode()

    @classmethod
    def from_text(cls, text: str) -> "Graph":
        """The inverse of ``to_text``; it raises the errors of ``from_json``."""
        try:
            inflater = zlib.decompressobj()
            content = inflater.decompress(base64.b64decode(text, validate=True), _MAX_JSON_BYTES)
            document = json.loads(content)
        except (TypeError, ValueError, zlib.error) as error:
            raise _malformed(f"not a graph: {error}") from error
        return cls.from_json(document)

    def check(self) -> None:
        """Check the structure of the graph; ``build_module`` checks the operations.

        Raises:
            InvalidInput: ``malformed_model`` if the graph is not well-formed.
        """
        if not 1 <= len(self.nodes) <= MAX_NODES:
            raise _malformed(f"{len(self.nodes)} nodes; from 1 to {MAX_NODES} are possible")
        if not all(type(size) is int and 1 <= size < _MAX_IMAGE_SIZE for size in self.input_shape):
            raise _malformed(f"images of {list(self.input_shape)}")
        for text in (self.input_name, self.output_name):
            if not isinstance(text, str) or len(text) > MAX_INPUT_NAME_LENGTH:
                raise _malformed("the input or the output has no name")
        names: set[str] = set()
        for index, node in enumerate(self.nodes):
            _check_node(index, node)
            if node.name and node.name in names:
                raise _malformed(f"two nodes have the name {node.name!r}")
            names.add(node.name)


def is_name(text: str) -> bool:
    """Whether a module or a parameter may have this (dotted) name."""
    fits = len(text) <= _MAX_NAME_LENGTH and _NAME.fullmatch(text) is not None
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
        fits = len(values) <= _MAX_ITEMS and all(map(_is_plain, values))
        if not _OPTION.fullmatch(key) or not fits:
            raise _malformed(f"node {index} has the option {key!r}: {str(value)[:80]}")


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= _MAX_OPTION_LENGTH and value.isidentifier()
    if isinstance(value, int):
        return abs(value) <= _MAX_WHOLE
    return isinstance(value, float) and math.isfinite(value) and abs(value) <= MAX_FLOAT


def _malformed(reason: str) -> InvalidInput:
    return InvalidInput("malformed_model", reason, "model")
