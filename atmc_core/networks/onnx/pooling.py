"""Rules for pools and reductions, and the padding of windows; see ``layers`` for what rules do."""

import numpy as np

from atmc_core.networks.onnx.builder import GraphBuilder, Operand, Value, unsupported
from atmc_core.networks.onnx.document import Operation, malformed
from atmc_core.networks.onnx.folding import integers
from atmc_core.networks.onnx.operands import Operands, axis_of, optional_of, pair_of, value_of

#: Paddings are at most this wide.
MAX_PADDING = 2**12


def symmetric_pads(
    builder: GraphBuilder,
    operation: Operation,
    value: Value,
    kernel: list[int],
    stride: list[int],
    dilation: list[int],
    fill: float,
) -> tuple[Value, list[int]]:
    """Find the padding of a convolution or a pool.

    The modules pad both sides alike, so other padding is added to the graph as a node of its own.

    Args:
        builder: the graph.
        operation: the operation.
        value: its input, ``[N, C, H, W]``.
        kernel: height and width of the window.
        stride: of the rows and the columns.
        dilation: of the rows and the columns.
        fill: the value that a node of its own pads with.

    Returns:
        The input of the module, padded if necessary, and the padding of rows and columns that the
        module itself has to do.
    """
    mode = operation.attributes.get("auto_pad", "NOTSET")
    pads = operation.attributes.get("pads") or [0, 0, 0, 0]
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        before, after = [], []
        for size, k, s, d in zip(value.shape[1:], kernel, stride, dilation, strict=True):
            total = max(0, (-(-size // s) - 1) * s + (k - 1) * d + 1 - size)
            small, large = total // 2, total - total // 2
            before.append(small if mode == "SAME_UPPER" else large)
            after.append(large if mode == "SAME_UPPER" else small)
        pads = [*before, *after]
    elif mode not in ("NOTSET", "VALID"):
        raise unsupported(operation, f"auto_pad {mode[:20]!r}")
    if len(pads) != 4 or min(pads) < 0 or max(pads) > MAX_PADDING:
        raise malformed(f"{operation.label} has the pads {pads[:8]}", operation.label)
    if pads[:2] == pads[2:]:
        return value, pads[:2]
    top, left, bottom, right = pads
    widths = [left, right, top, bottom]
    padded = builder.function(operation, "pad", [value], widths=widths, mode="constant", value=fill)
    return padded, [0, 0]


def pool(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    """MaxPool or AveragePool of ``[N, C, H, W]``."""
    value, attributes = value_of(operation, operands), operation.attributes
    if value.ndim != 4 or len(operation.outputs) > 1 or attributes.get("storage_order"):
        raise unsupported(operation, "only pools of [N, C, H, W] with one output are known")
    highest = operation.op == "MaxPool"
    kernel = pair_of(operation, "kernel_shape", [])
    stride = pair_of(operation, "strides", [1, 1])
    dilation = pair_of(operation, "dilations", [1, 1])
    counted = int(attributes.get("count_include_pad", 0))
    fill = float(np.finfo(np.float32).min) / 2 if highest else 0.0
    padded, padding = symmetric_pads(builder, operation, value, kernel, stride, dilation, fill)
    options = {
        "kernel": kernel,
        "stride": stride,
        "padding": padding,
        "ceil": int(attributes.get("ceil_mode", 0)),
    }
    if highest:
        return builder.module(operation, "max_pool", padded, options | {"dilation": dilation})
    if dilation != [1, 1] or (padded is not value and not counted):
        raise unsupported(operation, "a dilated average, or uneven padding that is not counted")
    return builder.module(operation, "average_pool", padded, options | {"count_padding": counted})


def global_pool(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    """GlobalAveragePool or GlobalMaxPool: a mean or maximum over height and width."""
    value = value_of(operation, operands)
    op = "mean" if operation.op == "GlobalAveragePool" else "max"
    return builder.function(operation, op, [value], dims=list(range(2, value.ndim)), keepdim=1)


def adaptive_pool(
    builder: GraphBuilder, operation: Operation, operand: Operand | None, size: tuple[int, int]
) -> Value:
    """An adaptive average pool, which ``find_window_means`` has recognised.

    Args:
        builder: the graph.
        operation: the first operation of the pool.
        operand: the map, ``[N, C, H, W]``.
        size: height and width of the pooled map.
    """
    value = value_of(operation, [operand])
    if value.ndim != 4:
        raise unsupported(operation, "only pools of [N, C, H, W] are known")
    return builder.module(operation, "adaptive_average_pool", value, {"size": list(size)})


def reduce(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    """ReduceMean, ReduceSum or ReduceMax over given axes."""
    value = value_of(operation, operands)
    axes = operation.attributes.get("axes")
    if axes is None:
        given = optional_of(operation, operands, 1)
        axes = None if given is None else integers(given)
    if not axes:
        raise unsupported(operation, "it works along the batch")
    dims = sorted({axis_of(operation, axis, value.ndim) for axis in axes})
    op = {"ReduceMean": "mean", "ReduceSum": "sum", "ReduceMax": "max"}[operation.op]
    keep = int(operation.attributes.get("keepdims", 1))
    return builder.function(operation, op, [value], dims=dims, keepdim=keep)
