"""Rules for element-wise operations; see ``layers`` for what rules do."""

from typing import Any

from atmc_core.networks.onnx.builder import GraphBuilder, Value, unsupported
from atmc_core.networks.onnx.document import Operation
from atmc_core.networks.onnx.operands import Operands, Rule, optional_of, value_of

# A bound of a larger magnitude is no bound.
_NO_BOUND = 1e38
# The slope and the offset of PyTorch's Hardsigmoid; a file's slope is rounded to float32.
_TORCH_SLOPE, _TORCH_OFFSET = 1 / 6, 0.5
_SLOPE_TOLERANCE = 1e-6


def module(op: str, **names: tuple[str, Any]) -> Rule:
    """A rule that adds a module of one tensor.

    Args:
        op: the module's name in the graph's operations.
        names: for each option of the module, the ONNX attribute and its default.
    """

    def rule(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
        attributes = operation.attributes
        options = {
            option: attributes.get(name, default) for option, (name, default) in names.items()
        }
        return builder.module(operation, op, value_of(operation, operands), options)

    return rule


def function(op: str) -> Rule:
    """A rule that adds a function of one or two tensors, which may be constants.

    Args:
        op: the function's name in the graph's operations.
    """

    def rule(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
        given = [operand for operand in operands if operand is not None]
        return builder.function(operation, op, given)

    return rule


def clip(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    """Clip: a ReLU, a module with two bounds, or a function with one."""
    value = value_of(operation, operands)
    bounds: list[float | None] = []
    for place, name in ((1, "min"), (2, "max")):
        given = optional_of(operation, operands, place)
        number = operation.attributes.get(name) if given is None else float(given.reshape(()))
        # Older exporters write "no bound" as the largest float.
        bounds.append(None if number is None or abs(number) > _NO_BOUND else number)
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
    """HardSigmoid: PyTorch's module if it has the same slope, else a function."""
    value = value_of(operation, operands)
    alpha = float(operation.attributes.get("alpha", 0.2))
    beta = float(operation.attributes.get("beta", 0.5))
    if abs(alpha - _TORCH_SLOPE) < _SLOPE_TOLERANCE and beta == _TORCH_OFFSET:
        return builder.module(operation, "hard_sigmoid", value)
    return builder.function(operation, "affine_clamp", [value], alpha=alpha, beta=beta)


def softmax_within(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    """Softmax inside the network, which is refused; the importer drops one at the end."""
    raise unsupported(operation, "a softmax is known only as the last operation")


def same(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    """An operation that changes nothing in inference; a dropout's second output is not made."""
    return value_of(operation, operands)
