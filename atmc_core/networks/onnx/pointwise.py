"""Rules for element-wise operations; see ``layers`` for what rules do."""

from typing import Any

import numpy as np

from atmc_core.networks.onnx.builder import GraphBuilder, Operand, Value, unsupported
from atmc_core.networks.onnx.document import Operation
from atmc_core.networks.onnx.operands import (
    Operands,
    Rule,
    constant_of,
    module_name,
    number_of,
    optional_of,
    value_of,
)

# A lower bound below the negative of this is no bound, nor is an upper bound above it.
_NO_BOUND = 1e38
# The slope and the offset of PyTorch's Hardsigmoid; a file's slope is rounded to float32.
_TORCH_SLOPE, _TORCH_OFFSET = 1 / 6, 0.5
_SLOPE_TOLERANCE = 1e-6
# ONNX's defaults for Selu.
_SELU_ALPHA, _SELU_GAMMA = 1.6732632423543772, 1.0507009873554805


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
    for place, name, sign in ((1, "min", -1), (2, "max", 1)):
        given = optional_of(operation, operands, place)
        number = operation.attributes.get(name) if given is None else float(given.reshape(()))
        # Older exporters write "no bound" as the largest float, others as infinity.
        bounds.append(None if number is None or sign * number > _NO_BOUND else number)
    return _clamped(builder, operation, value, *bounds)


def _clamped(
    builder: GraphBuilder,
    operation: Operation,
    value: Value,
    low: float | None,
    high: float | None,
) -> Value:
    if low == 0 and high is None:
        return builder.module(operation, "relu", value)
    if low is not None and high is not None and low < high:
        return builder.module(operation, "clip", value, {"low": low, "high": high})
    options = {name: n for name, n in (("low", low), ("high", high)) if n is not None}
    if not options:
        return value
    return builder.function(operation, "clamp", [value], **options)


def extreme(operation_of_two: str) -> Rule:
    """A rule for Max or Min of any number of tensors; constants of one element are bounds.

    Args:
        operation_of_two: the name of the function of two tensors, ``maximum`` or ``minimum``.
    """

    def rule(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
        given = [operand for operand in operands if operand is not None]
        values = [operand for operand in given if isinstance(operand, Value)]
        constants = [operand for operand in given if not isinstance(operand, Value)]
        result = values[0]
        for value in values[1:]:
            result = builder.function(operation, operation_of_two, [result, value])
        for constant in constants:
            if constant.size > 1:
                operands_of_two: list[Operand] = [result, constant.astype("float32")]
                result = builder.function(operation, operation_of_two, operands_of_two)
                continue
            bound = float(constant.reshape(()))
            if operation_of_two == "minimum":
                result = _clamped(builder, operation, result, None, _or_none(bound, 1))
            else:
                result = _clamped(builder, operation, result, _or_none(bound, -1), None)
        return result

    return rule


def _or_none(bound: float, sign: int) -> float | None:
    return None if sign * bound > _NO_BOUND else bound


def total(builder: GraphBuilder, operation: Operation, operands: Operands) -> Operand:
    """Sum or Mean of any number of tensors."""
    given = [operand for operand in operands if operand is not None]
    given.sort(key=lambda operand: not isinstance(operand, Value))
    result = given[0]
    for operand in given[1:]:
        result = builder.function(operation, "add", [result, operand])
    if operation.op == "Mean":
        count = np.array(len(given), np.float32)
        return builder.function(operation, "div", [result, count])
    return result


def prelu(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    """PRelu: a PReLU if it has one slope, or one for each channel; else it is spelled out."""
    value, slope = value_of(operation, operands), constant_of(operation, operands, 1)
    channels = (value.shape[0], *[1] * (value.ndim - 2)) if value.ndim > 1 else ()
    sizes = slope.shape[1:] if slope.ndim == value.ndim and slope.shape[:1] == (1,) else slope.shape
    if slope.size == 1 or sizes == channels:
        weight = {"weight": slope.reshape(-1)}
        options = {"slopes": slope.size}
        return builder.module(operation, "prelu", value, options, weight, module_name(operation))
    above = builder.module(operation, "relu", value)
    below = builder.function(operation, "sub", [value, above])
    bent = builder.function(operation, "mul", [below, slope])
    return builder.function(operation, "add", [above, bent])


def selu(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    """Selu: gamma times an ELU."""
    alpha = number_of(operation, "alpha", _SELU_ALPHA)
    gamma = number_of(operation, "gamma", _SELU_GAMMA)
    value = builder.module(operation, "elu", value_of(operation, operands), {"alpha": alpha})
    return builder.function(operation, "mul", [value, np.array(gamma, np.float32)])


def softsign(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    """Softsign: x / (1 + |x|)."""
    value = value_of(operation, operands)
    size = builder.function(operation, "abs", [value])
    divisor = builder.function(operation, "add", [size, np.ones((), np.float32)])
    return builder.function(operation, "div", [value, divisor])


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
