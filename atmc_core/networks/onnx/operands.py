"""Access to the operands and attributes of an operation, with the checks that all rules share."""

import math
from collections.abc import Callable

from atmc_core.networks.onnx.builder import GraphBuilder, Operand, Value, unsupported
from atmc_core.networks.onnx.document import Array, Operation, malformed

#: The operands of an operation; None for an optional one that is left out.
Operands = list[Operand | None]
#: A function that adds an operation to the graph, given the builder, the operation and its
#: operands; returns the operation's outputs.
Rule = Callable[[GraphBuilder, Operation, Operands], "Operand | list[Operand]"]

# Strides, dilations and sizes of kernels are at most this large.
_MAX_WINDOW = 2**12


def value_of(operation: Operation, operands: Operands, place: int = 0) -> Value:
    """The operand at index ``place``, which must depend on the images.

    Raises:
        InvalidInput: ``unsupported_operator`` if it does not.
    """
    found = operands[place] if place < len(operands) else None
    if not isinstance(found, Value):
        raise unsupported(operation, f"its input {place} is not computed from the images")
    return found


def constant_of(operation: Operation, operands: Operands, place: int) -> Array:
    """The operand at index ``place``, which must be a constant.

    Raises:
        InvalidInput: ``malformed_model`` if there is no such operand; ``unsupported_operator`` if
            it depends on the images.
    """
    found = operands[place] if place < len(operands) else None
    if found is None:
        raise malformed(f"{operation.label} has no input {place}", operation.label)
    if isinstance(found, Value):
        raise unsupported(operation, f"its input {place} is not constant")
    return found


def optional_of(operation: Operation, operands: Operands, place: int) -> Array | None:
    """The operand at index ``place``, a constant, or None if it is left out.

    Raises:
        InvalidInput: ``unsupported_operator`` if it depends on the images.
    """
    if place >= len(operands) or operands[place] is None:
        return None
    return constant_of(operation, operands, place)


def module_name(operation: Operation) -> str:
    """The layer's name, taken from the name of its weight; empty if that does not tell."""
    weight = operation.inputs[1] if len(operation.inputs) > 1 else ""
    return weight.removesuffix(".weight") if weight.endswith(".weight") else ""


def axis_of(operation: Operation, axis: int, ndim: int) -> int:
    """The axis as a number of at least 1.

    Args:
        operation: the operation, for messages.
        axis: the axis; below 0 it counts from the end.
        ndim: the number of axes.

    Raises:
        InvalidInput: ``malformed_model`` if there is no such axis; ``unsupported_operator`` if it
            is the batch's.
    """
    if not -ndim <= axis < ndim:
        raise malformed(f"{operation.label} has axis {axis} of {ndim}", operation.label)
    if axis % ndim == 0:
        raise unsupported(operation, "it works along the batch")
    return axis % ndim


def pair_of(operation: Operation, name: str, default: list[int]) -> list[int]:
    """An attribute that is two positive integers, such as a stride.

    Raises:
        InvalidInput: ``unsupported_operator`` if it is something else.
    """
    found = operation.attributes.get(name) or default
    if len(found) != 2 or min(found) < 1 or max(found) > _MAX_WINDOW:
        raise unsupported(operation, f"{name} {found[:8]}; two of at least 1 are expected")
    return list(found)


def number_of(operation: Operation, name: str, default: float) -> float:
    """An attribute that is one number.

    Raises:
        InvalidInput: ``malformed_model`` if it is something else, or not finite.
    """
    found = operation.attributes.get(name, default)
    if not isinstance(found, int | float) or not math.isfinite(found):
        raise malformed(f"{operation.label} has the {name} {str(found)[:20]}", operation.label)
    return float(found)
