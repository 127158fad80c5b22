"""Holds nodes against ONNX's own description of their operators.

Rules can then take for granted how many inputs an operation has, and of which type an attribute is.
"""

from functools import lru_cache

from onnx import AttributeProto, NodeProto, defs

from atmc_core.errors import InvalidInput
from atmc_core.networks.onnx.refusals import label_of, malformed

_KINDS = AttributeProto.AttributeType
# A number of inputs without a bound is given as a very large one.
_MANY = 1000


def check_form(index: int, node: NodeProto, opset: int) -> None:
    """Check the inputs, outputs and attributes of a node of ONNX's own domain.

    Args:
        index: the node's number in the file.
        node: the node.
        opset: the version of the operator set.

    Raises:
        InvalidInput: ``unsupported_operator`` if ONNX has no such operator; ``malformed_model`` if
            the node is not formed as it should be.
    """
    label, schema = label_of(index, node), _schema(node.op_type, opset)
    if schema is None:
        raise InvalidInput(
            "unsupported_operator", f"{label}: opset {opset} of ONNX has no such operator", label
        )
    for kind, given, least, most in (
        ("inputs", node.input, schema.min_input, schema.max_input),
        ("outputs", node.output, schema.min_output, schema.max_output),
    ):
        if not least <= len(given) <= most:
            wanted = str(least) if least == most else f"{least} to {most}"
            wanted = f"at least {least}" if most > least + _MANY else wanted
            raise malformed(f"{label} has {len(given)} {kind}; {wanted} are expected", label)
    for place, (name, formal) in enumerate(zip(node.input, schema.inputs, strict=False)):
        if not name and formal.option == defs.OpSchema.FormalParameterOption.Single:
            raise malformed(f"{label} has no input {place}", label)
    kinds = {attribute.name: _kind(attribute.type) for attribute in node.attribute}
    for name, described in schema.attributes.items():
        # Such as AttrType.INT.
        expected = str(described.type).rpartition(".")[2].lower()
        if name not in kinds:
            if described.required:
                raise malformed(f"{label} has no attribute {name!r}", label)
        elif kinds[name] != expected:
            raise malformed(
                f"{label}: its attribute {name!r} is {kinds[name]}; {expected} is expected", label
            )


@lru_cache(maxsize=1024)
def _schema(op: str, opset: int) -> defs.OpSchema | None:
    return defs.get_schema(op, opset) if defs.has(op, opset) else None


def _kind(number: int) -> str:
    return _KINDS.Name(number).lower() if number in _KINDS.values() else f"type {number}"
