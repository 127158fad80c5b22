"""Operations on each entry by itself."""

from typing import Any

from atmc_core.networks.onnx.builder import GraphBuilder, Value, unsupported
from atmc_core.networks.onnx.document import Operation
from atmc_core.networks.onnx.operands import Operands, Rule, optional_of, value_of


def module(op: str, **names: tuple[str, Any]) -> Rule:
    """A module of one tensor; ``names`` maps its options to an attribute and its default."""

    def rule(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
        attributes = operation.attributes
        options = {
            option: attributes.get(name, default) for option, (name, default) in names.items()
        }
        return builder.module(operation, op, value_of(operation, operands), options)

    return rule


def function(op: str) -> Rule:
    """A function of one tensor or of two, either of which may be a constant."""

    def rule(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
        given = [operand for operand in operands if operand is not None]
        return builder.function(operation, op, given)

    return rule


def clip(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    value = value_of(operation, operands)
    bounds: list[float | None] = []
    for place, name in ((1, "min"), (2, "max")):
        given = optional_of(operation, operands, place)
        number = operation.attributes.get(name) if given is None else float(given.reshape(()))
        # Older exporters write "no bound" as the largest number there is.
        bounds.append(None if number is None or abs(number) > 1e38 else number)
    low, high = bounds
    if low == 0 and high is None:
        return builder.module(operation, "relu", value)
    if low is not None and high is not None and low < high:
        return builder.module(operation, "clip", value, {"low": low, "high": high})
    options = {name: n for name, n in (("low", low), ("high", high)) if n is not None}
    if not options:
        return value
    return builder.function(operation, "clamp", [value], **options)


def hard_sigmoid(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    value = value_of(operation, operands)
    alpha = float(operation.attributes.get("alpha", 0.2))
    beta = float(operation.attributes.get("beta", 0.5))
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return builder.module(operation, "hard_sigmoid", value)
    return builder.function(operation, "affine_clamp", [value], alpha=alpha, beta=beta)


def softmax_within(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    raise unsupported(operation, "a softmax is known only as the last operation")


def same(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    """What changes nothing in inference; the training mask of a dropout is not there."""
    return value_of(operation, operands)
