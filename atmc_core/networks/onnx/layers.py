"""Rules for operations with weights: convolutions, linear layers; norms are in ``norms``.

Each rule adds an operation to the graph. It raises InvalidInput: ``unsupported_operator`` for a
form that the graph does not have, ``malformed_model`` for operands that do not fit.
"""

import numpy as np

from atmc_core.networks.onnx.builder import GraphBuilder, Value, unsupported
from atmc_core.networks.onnx.document import Array, Operation, malformed
from atmc_core.networks.onnx.operands import (
    Operands,
    constant_of,
    module_name,
    optional_of,
    pair_of,
    value_of,
)
from atmc_core.networks.onnx.pooling import symmetric_pads


def conv(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    """Conv over two dimensions: a Conv2d."""
    value, weight = value_of(operation, operands), constant_of(operation, operands, 1)
    bias = optional_of(operation, operands, 2)
    if weight.ndim != 4 or value.ndim != 4:
        raise unsupported(operation, f"a convolution over {weight.ndim - 2} dimensions")
    groups = operation.attributes.get("group", 1)
    kernel = list(weight.shape[2:])
    stride = pair_of(operation, "strides", [1, 1])
    dilation = pair_of(operation, "dilations", [1, 1])
    value, padding = symmetric_pads(builder, operation, value, kernel, stride, dilation)
    options = {
        "inputs": weight.shape[1] * groups,
        "outputs": weight.shape[0],
        "kernel": kernel,
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "bias": int(bias is not None),
    }
    return builder.module(
        operation,
        "conv",
        value,
        options,
        _weights(operation, weight, bias),
        module_name(operation),
    )


def _weights(operation: Operation, weight: Array, bias: Array | None) -> dict[str, Array]:
    if bias is not None and bias.shape != weight.shape[:1]:
        raise malformed(
            f"{operation.label} has a bias of {list(bias.shape)} for a weight of "
            f"{list(weight.shape)}",
            operation.label,
        )
    return {"weight": weight} | ({} if bias is None else {"bias": bias})


def _linear(
    builder: GraphBuilder, operation: Operation, value: Value, weight: Array, bias: Array | None
) -> Value:
    options = {
        "inputs": weight.shape[1],
        "outputs": weight.shape[0],
        "bias": int(bias is not None),
    }
    return builder.module(
        operation,
        "linear",
        value,
        options,
        _weights(operation, weight, bias),
        module_name(operation),
    )


def gemm(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    """Gemm of ``[N, features]`` and a constant matrix: a linear layer."""
    value, weight = value_of(operation, operands), constant_of(operation, operands, 1)
    given, attributes = optional_of(operation, operands, 2), operation.attributes
    if weight.ndim != 2 or value.ndim != 2 or attributes.get("transA"):
        raise unsupported(operation, "only [N, features] times a constant matrix is a linear layer")
    weight = weight if attributes.get("transB") else weight.T
    weight = weight * np.float32(attributes.get("alpha", 1.0))
    if given is None:
        return _linear(builder, operation, value, weight, None)
    if given.size not in (1, weight.shape[0]):
        raise unsupported(operation, f"a bias of {list(given.shape)}")
    bias = np.broadcast_to(given.reshape(-1), weight.shape[:1])
    bias = bias * np.float32(attributes.get("beta", 1.0))
    return _linear(builder, operation, value, weight, bias)


def matmul(
    builder: GraphBuilder, operation: Operation, operands: Operands, bias: Array | None = None
) -> Value:
    """MatMul with a constant matrix: a linear layer over the last axis.

    Args:
        builder: the graph.
        operation: the operation.
        operands: its operands.
        bias: the constant that a following Add adds to the product, if there is one.
    """
    value, weight = value_of(operation, operands), constant_of(operation, operands, 1)
    if weight.ndim != 2:
        raise unsupported(operation, f"a product with a constant of {weight.ndim} dimensions")
    return _linear(builder, operation, value, weight.T, bias)
