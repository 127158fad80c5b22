"""The words with which an ONNX file is refused before its operators are read."""

from collections.abc import Sequence

from onnx import AttributeProto, NodeProto

from atmc_core.errors import InvalidInput

# At most this many characters of a name from the file, and of an operator's or an attribute's name,
# appear in messages.
_SHOWN_NAME, _SHOWN_OPERATOR = 80, 40
# At most this many names appear in one message.
_SHOWN_NAMES = 4

_QUANTISED_OPERATORS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
# How the names of other quantised operators begin or end, in ONNX and onnxruntime.
_QUANTISED_PREFIXES, _QUANTISED_SUFFIXES = ("QLinear", "QGemm", "QAttention"), ("Integer", "NBits")
_QUANTISED = (
    "the file is quantised, and integers cannot be trained: send the float32 model that it was "
    "made from; the service quantises by itself"
)
_RUNTIME_DOMAINS = ("com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc")


def malformed(message: str, param: str = "model") -> InvalidInput:
    """The error for a file that is not valid, or contradicts itself."""
    return InvalidInput("malformed_model", f"the ONNX file cannot be used: {message}", param)


def shown(name: str) -> str:
    """A name from the file, as messages show it."""
    return repr(name[:_SHOWN_NAME])


def all_shown(names: Sequence[str]) -> str:
    """Several names from the file, as messages show them."""
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(map(shown, names[:_SHOWN_NAMES])) + more


def label_of(index: int, node: NodeProto) -> str:
    """A text that names a node in messages: by its name, else by its number in the file."""
    operator = node.op_type[:_SHOWN_OPERATOR]
    return f"{operator} node {shown(node.name)}" if node.name else f"{operator} node number {index}"


def check_kind(index: int, node: NodeProto, functions: Sequence[str]) -> None:
    """Check that a node is one of ONNX's own, and of a network that computes with floats.

    Args:
        index: the node's number in the file.
        node: the node.
        functions: the names of the functions that the file defines.

    Raises:
        InvalidInput: ``unsupported_operator``, with what to do.
    """
    op, domain = node.op_type, node.domain
    if (
        op in _QUANTISED_OPERATORS
        or op.startswith(_QUANTISED_PREFIXES)
        or op.endswith(_QUANTISED_SUFFIXES)
        or "Quantize" in op
    ):
        reason = _QUANTISED
    elif any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in node.attribute):
        reason = (
            "control flow (a graph within a node) is not supported: export the network by tracing, "
            "in evaluation mode, with torch.onnx.export of the module itself and not of a script"
        )
    elif "Sequence" in op or op.startswith("Optional"):
        reason = (
            "lists of tensors (sequences) are not supported: export the network by tracing, with "
            "torch.cat or torch.stack of tensors known by then"
        )
    elif domain in ("", "ai.onnx"):
        return
    elif op in functions:
        reason = (
            "it calls a function that the file defines: write the file with "
            "onnx.inliner.inline_local_functions(model)"
        )
    elif domain in _RUNTIME_DOMAINS:
        reason = (
            "onnxruntime's optimizer made it: send the file from before the optimization, as the "
            "exporter wrote it"
        )
    else:
        reason = (
            f"operators of the domain {domain[:_SHOWN_OPERATOR]!r} are not supported: export the "
            "network with ONNX's own operators"
        )
    raise InvalidInput(
        "unsupported_operator", f"{label_of(index, node)}: {reason}", node.name[:_SHOWN_NAME] or op
    )
