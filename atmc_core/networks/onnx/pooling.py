"""Rules for pools and reductions, and the padding of windows; see ``layers`` for what rules do."""

from atmc_core.networks.graph.ir import MAX_FLOAT
from atmc_core.networks.onnx.builder import GraphBuilder, Operand, Value, unsupported
from atmc_core.networks.onnx.document import Operation, malformed
from atmc_core.networks.onnx.folding import integers
from atmc_core.networks.onnx.operands import Operands, axis_of, optional_of, pair_of, value_of

#: Paddings are at most this wide.
MAX_PADDING = 2**12
#: For each reduction, what is done to each entry before, the reduction, and what is done after it.
REDUCTIONS = {
    "ReduceMean": ("", "mean", ""),
    "ReduceSum": ("", "sum", ""),
    "ReduceMax": ("", "max", ""),
    "ReduceMin": ("neg", "max", "neg"),
    "ReduceL1": ("abs", "sum", ""),
    "ReduceL2": ("", "norm", ""),
    "ReduceSumSquare": ("square", "sum", ""),
    "ReduceLogSum": ("", "sum", "log"),
    "ReduceLogSumExp": ("", "logsumexp", ""),
}


def paddings(
    operation: Operation, value: Value, kernel: list[int], stride: list[int], dilation: list[int]
) -> list[int]:
    """The padding of a convolution or a pool.

    Args:
        operation: the operation.
        value: its input, ``[N, C, H, W]``.
        kernel: height and width of the window.
        stride: of the rows and the columns.
        dilation: of the rows and the columns.

    Returns:
        The rows above, the columns left, the rows below and the columns right.
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
    return list(pads)


def symmetric_pads(
    builder: GraphBuilder,
    operation: Operation,
    value: Value,
    kernel: list[int],
    stride: list[int],
    dilation: list[int],
) -> tuple[Value, list[int]]:
    """Pad the input of a convolution as far as the module, which pads alike, does not do it.

    Args:
        builder: the graph.
        operation: the operation.
        value: its input, ``[N, C, H, W]``.
        kernel: height and width of the window.
        stride: of the rows and the columns.
        dilation: of the rows and the columns.

    Returns:
        The input of the module, padded if necessary, and the padding of rows and columns that the
        module itself has to do.
    """
    pads = paddings(operation, value, kernel, stride, dilation)
    if pads[:2] == pads[2:]:
        return value, pads[:2]
    return _padded(builder, operation, value, pads, 0.0), [0, 0]


def pool(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    """MaxPool or AveragePool of ``[N, C, H, W]``."""
    value, attributes = value_of(operation, operands), operation.attributes
    if value.ndim != 4 or len(operation.outputs) > 1 or attributes.get("storage_order"):
        raise unsupported(operation, "only pools of [N, C, H, W] with one output are known")
    kernel = pair_of(operation, "kernel_shape", [])
    stride = pair_of(operation, "strides", [1, 1])
    dilation = pair_of(operation, "dilations", [1, 1])
    pads = paddings(operation, value, kernel, stride, dilation)
    ceil = int(attributes.get("ceil_mode", 0))
    # The modules pad both sides alike, by at most half a window.
    windows = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    even = pads[:2] == pads[2:]
    fits = even and all(2 * p <= window for p, window in zip(pads[:2], windows, strict=True))
    if not fits:
        pads = _whole_windows(operation, value, pads, windows, stride, ceil)
        ceil = 0
    options = {"kernel": kernel, "stride": stride, "padding": pads[:2], "ceil": ceil}
    if operation.op == "MaxPool":
        if not fits:
            value = _padded(builder, operation, value, pads, -MAX_FLOAT)
            options["padding"] = [0, 0]
        return builder.module(operation, "max_pool", value, options | {"dilation": dilation})
    if dilation != [1, 1]:
        raise unsupported(operation, "a dilated average is not known")
    counted = int(attributes.get("count_include_pad", 0))
    if not fits and counted:
        value = _padded(builder, operation, value, pads, 0.0)
        options["padding"] = [0, 0]
    elif not fits:
        options["padding"] = pads
    return builder.module(operation, "average_pool", value, options | {"count_padding": counted})


def _whole_windows(
    operation: Operation,
    value: Value,
    pads: list[int],
    windows: list[int],
    stride: list[int],
    ceil: int,
) -> list[int]:
    """The padding with which exactly those windows fit that ONNX's pool has.

    Raises:
        InvalidInput: ``unsupported_operator`` if a window would lie within the padding.
    """
    before, after = pads[:2], pads[2:]
    for axis, (size, window, s) in enumerate(zip(value.shape[1:], windows, stride, strict=True)):
        room = size + before[axis] + after[axis] - window
        last = room // s
        if ceil:
            # A further window is only made if it starts within the map or before it.
            last = min(-(-room // s), (size + before[axis] - 1) // s)
        after[axis] = max(0, last * s + window - size - before[axis])
        if last < 0 or max(before[axis], after[axis]) >= window:
            raise unsupported(operation, f"pads {pads}: a window lies within the padding")
    return [*before, *after]


def _padded(
    builder: GraphBuilder, operation: Operation, value: Value, pads: list[int], fill: float
) -> Value:
    top, left, bottom, right = pads
    widths = [left, right, top, bottom]
    return builder.function(operation, "pad", [value], widths=widths, mode="constant", value=fill)


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
    """A reduction over given axes: ReduceMean, ReduceSum, ReduceMax, ReduceMin, ReduceL1 ..."""
    value = value_of(operation, operands)
    axes = operation.attributes.get("axes")
    if axes is None:
        given = optional_of(operation, operands, 1)
        axes = None if given is None else integers(given)
    if not axes:
        raise unsupported(operation, "it works along the batch")
    dims = sorted({axis_of(operation, axis, value.ndim) for axis in axes})
    before, op, after = REDUCTIONS[operation.op]
    if before == "square":
        value = builder.function(operation, "mul", [value, value])
    elif before:
        value = builder.function(operation, before, [value])
    keep = int(operation.attributes.get("keepdims", 1))
    value = builder.function(operation, op, [value], dims=dims, keepdim=keep)
    return builder.function(operation, after, [value]) if after else value
