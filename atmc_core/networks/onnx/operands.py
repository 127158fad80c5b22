"""What an operation is given, and what is refused of it."""

from collections.abc import Callable

from atmc_core.networks.onnx.builder import GraphBuilder, Operand, Value, unsupported
from atmc_core.networks.onnx.document import Array, Operation, malformed

Operands = list[Operand | None]
#: What an operation becomes: a rule gets the builder, the operation and its operands.
Rule = Callable[[GraphBuilder, Operation, Operands], "Operand | list[Operand]"]


def value_of(operation: Operation, operands: Operands, place: int = 0) -> Value:
    """An operand that depends on the images."""
    found = operands[place] if place < len(operands) else None
    if not isinstance(found, Value):
        raise unsupported(operation, f"its input {place} is not computed from the images")
    return found


def constant_of(operation: Operation, operands: Operands, place: int) -> Array:
    """An operand that has to be a constant."""
    found = operands[place] if place < len(operands) else None
    if found is None:
        raise malformed(f"{operation.label} has no input {place}", operation.label)
    if isinstance(found, Value):
        raise unsupported(operation, f"its input {place} is not constant")
    return found


def optional_of(operation: Operation, operands: Operands, place: int) -> Array | None:
    if place >= len(operands) or operands[place] is None:
        return None
    return constant_of(operation, operands, place)


def module_name(operation: Operation) -> str:
    """Where the weight's own name says the layer is."""
    weight = operation.inputs[1] if len(operation.inputs) > 1 else ""
    return weight.removesuffix(".weight") if weight.endswith(".weight") else ""


def axis_of(operation: Operation, axis: int, ndim: int) -> int:
    """A non-negative axis that is not the batch's."""
    if not -ndim <= axis < ndim:
        raise malformed(f"{operation.label} has axis {axis} of {ndim}", operation.label)
    if axis % ndim == 0:
        raise unsupported(operation, "it works along the batch")
    return axis % ndim


def pair_of(operation: Operation, name: str, default: list[int]) -> list[int]:
    found = operation.attributes.get(name) or default
    if len(found) != 2 or min(found) < 1 or max(found) > 2**12:
        raise unsupported(operation, f"{name} {found[:8]}; two of at least 1 are expected")
    return list(found)
