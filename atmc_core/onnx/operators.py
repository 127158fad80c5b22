"""What each ONNX operator becomes. A rule gets the builder, the operation and its operands."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from atmc_core.onnx.builder import BATCH, GraphBuilder, Operand, Value, unsupported
from atmc_core.onnx.document import Array, Operation, malformed
from atmc_core.onnx.folding import integers, slices

Operands = list[Operand | None]
Rule = Callable[[GraphBuilder, Operation, Operands], "Operand | list[Operand]"]


def _value(operation: Operation, operands: Operands, place: int = 0) -> Value:
    """An operand that depends on the images."""
    found = operands[place] if place < len(operands) else None
    if not isinstance(found, Value):
        raise unsupported(operation, f"its input {place} is not computed from the images")
    return found


def _constant(operation: Operation, operands: Operands, place: int) -> Array:
    """An operand that has to be a constant."""
    found = operands[place] if place < len(operands) else None
    if found is None:
        raise malformed(f"{operation.label} has no input {place}", operation.label)
    if isinstance(found, Value):
        raise unsupported(operation, f"its input {place} is not constant")
    return found


def _optional(operation: Operation, operands: Operands, place: int) -> Array | None:
    if place >= len(operands) or operands[place] is None:
        return None
    return _constant(operation, operands, place)


def _module_name(operation: Operation) -> str:
    """Where the weight's own name says the layer is."""
    weight = operation.inputs[1] if len(operation.inputs) > 1 else ""
    return weight.removesuffix(".weight") if weight.endswith(".weight") else ""


def _axis(operation: Operation, axis: int, ndim: int) -> int:
    """A non-negative axis that is not the batch's."""
    if not -ndim <= axis < ndim:
        raise malformed(f"{operation.label} has axis {axis} of {ndim}", operation.label)
    if axis % ndim == 0:
        raise unsupported(operation, "it works along the batch")
    return axis % ndim


def _pads(
    builder: GraphBuilder,
    operation: Operation,
    value: Value,
    kernel: list[int],
    stride: list[int],
    dilation: list[int],
    fill: float,
) -> tuple[Value, list[int]]:
    """Symmetric padding for a module; what is not symmetric is padded beforehand."""
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
    if len(pads) != 4 or min(pads) < 0 or max(pads) > 2**12:
        raise malformed(f"{operation.label} has the pads {pads[:8]}", operation.label)
    if pads[:2] == pads[2:]:
        return value, pads[:2]
    top, left, bottom, right = pads
    widths = [left, right, top, bottom]
    padded = builder.function(operation, "pad", [value], widths=widths, mode="constant", value=fill)
    return padded, [0, 0]


def _square(operation: Operation, name: str, default: list[int]) -> list[int]:
    found = operation.attributes.get(name) or default
    if len(found) != 2 or min(found) < 1 or max(found) > 2**12:
        raise unsupported(operation, f"{name} {found[:8]}; two of at least 1 are expected")
    return list(found)


def _conv(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    value, weight = _value(operation, operands), _constant(operation, operands, 1)
    bias = _optional(operation, operands, 2)
    if weight.ndim != 4 or value.ndim != 4:
        raise unsupported(operation, f"a convolution over {weight.ndim - 2} dimensions")
    groups = operation.attributes.get("group", 1)
    kernel = list(weight.shape[2:])
    stride = _square(operation, "strides", [1, 1])
    dilation = _square(operation, "dilations", [1, 1])
    value, padding = _pads(builder, operation, value, kernel, stride, dilation, 0.0)
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
        _module_name(operation),
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
        _module_name(operation),
    )


def _gemm(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    value, weight = _value(operation, operands), _constant(operation, operands, 1)
    given, attributes = _optional(operation, operands, 2), operation.attributes
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
    """A linear layer over the last axis; ``bias`` is of the Add that follows, if one does."""
    value, weight = _value(operation, operands), _constant(operation, operands, 1)
    if weight.ndim != 2:
        raise unsupported(operation, f"a product with a constant of {weight.ndim} dimensions")
    return _linear(builder, operation, value, weight.T, bias)


def _batch_norm(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    value = _value(operation, operands)
    if value.ndim != 4 or len(operation.outputs) > 1:
        raise unsupported(operation, "only a norm of [N, C, H, W] in inference is known")
    names = ("weight", "bias", "running_mean", "running_var")
    tensors = {name: _constant(operation, operands, i + 1) for i, name in enumerate(names)}
    for name, tensor in tensors.items():
        if tensor.shape != value.shape[:1]:
            raise malformed(
                f"{operation.label}: {name} is {list(tensor.shape)} for {value.shape[0]} channels",
                operation.label,
            )
    options = {
        "features": value.shape[0],
        "eps": float(operation.attributes.get("epsilon", 1e-5)),
        # The other way round than PyTorch's: the share of the old statistics. In files that were
        # exported for inference it says nothing.
        "momentum": 0.1,
    }
    return builder.module(operation, "batch_norm", value, options, tensors, _module_name(operation))


def _layer_norm(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    value, scale = _value(operation, operands), _constant(operation, operands, 1)
    bias = _optional(operation, operands, 2)
    axis = _axis(operation, operation.attributes.get("axis", -1), value.ndim)
    if scale.shape != value.meta.shape[axis:] or len(operation.outputs) > 1:
        raise unsupported(operation, f"a scale of {list(scale.shape)} for {list(value.shape)}")
    options = {
        "shape": list(scale.shape),
        "eps": float(operation.attributes.get("epsilon", 1e-5)),
        "bias": int(bias is not None),
    }
    if bias is not None and bias.shape != scale.shape:
        raise malformed(f"{operation.label} has a bias of {list(bias.shape)}", operation.label)
    tensors = {"weight": scale} | ({} if bias is None else {"bias": bias})
    return builder.module(operation, "layer_norm", value, options, tensors, _module_name(operation))


def _pool(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    value, attributes = _value(operation, operands), operation.attributes
    if value.ndim != 4 or len(operation.outputs) > 1 or attributes.get("storage_order"):
        raise unsupported(operation, "only pools of [N, C, H, W] with one output are known")
    highest = operation.op == "MaxPool"
    kernel = _square(operation, "kernel_shape", [])
    stride = _square(operation, "strides", [1, 1])
    dilation = _square(operation, "dilations", [1, 1])
    counted = int(attributes.get("count_include_pad", 0))
    fill = float(np.finfo(np.float32).min) / 2 if highest else 0.0
    padded, padding = _pads(builder, operation, value, kernel, stride, dilation, fill)
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


def _global_pool(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    value = _value(operation, operands)
    op = "mean" if operation.op == "GlobalAveragePool" else "max"
    return builder.function(operation, op, [value], dims=list(range(2, value.ndim)), keepdim=1)


def _reduce(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    value = _value(operation, operands)
    axes = operation.attributes.get("axes")
    if axes is None:
        given = _optional(operation, operands, 1)
        axes = None if given is None else integers(given)
    if not axes:
        raise unsupported(operation, "it works along the batch")
    dims = sorted({_axis(operation, axis, value.ndim) for axis in axes})
    op = {"ReduceMean": "mean", "ReduceSum": "sum", "ReduceMax": "max"}[operation.op]
    keep = int(operation.attributes.get("keepdims", 1))
    return builder.function(operation, op, [value], dims=dims, keepdim=keep)


def _reshaped(
    builder: GraphBuilder, operation: Operation, value: Value, sizes: list[int], copy_zero: bool
) -> Value:
    """Reshape each image; whatever the batch's size is written as, it stays."""
    given = value.shape
    batch, rest = sizes[:1], sizes[1:]
    if copy_zero:
        known = (0, *given)
        rest = [
            known[place] if size == 0 and place < len(known) else size
            for place, size in enumerate(rest, start=1)
        ]
    count = int(np.prod(given)) if given else 1
    others = int(np.prod([float(size) for size in rest if size != -1]))
    if rest.count(-1) == 1 and batch[0] != -1 and others > 0 and count % others == 0:
        rest = [count // others if size == -1 else size for size in rest]
        others = count
    if len(sizes) < 1 or min(rest, default=1) < 1 or others != count:
        shown = ["N" if size == BATCH else size for size in sizes]
        raise unsupported(operation, f"{list(given)} to {shown[:8]} mixes the images of a batch")
    return builder.function(operation, "reshape", [value], shape=rest)


def _reshape(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    value = _value(operation, operands)
    sizes = integers(_constant(operation, operands, 1))
    copy_zero = not operation.attributes.get("allowzero")
    return _reshaped(builder, operation, value, sizes, copy_zero)


def _flatten(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    value = _value(operation, operands)
    axis = operation.attributes.get("axis", 1)
    if axis not in (1, 1 - value.ndim):
        raise unsupported(operation, f"axis {axis}; 1 leaves the batch as it is")
    return _reshaped(builder, operation, value, [BATCH, int(np.prod(value.shape))], False)


def _squeeze(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    value = _value(operation, operands)
    axes = operation.attributes.get("axes")
    if axes is None:
        given = _optional(operation, operands, 1)
        axes = None if given is None else integers(given)
    if axes is None:
        raise unsupported(operation, "it may squeeze the batch; name the axes")
    if operation.op == "Squeeze":
        gone = {_axis(operation, axis, value.ndim) for axis in axes}
        if any(value.meta.shape[axis] != 1 for axis in gone):
            raise malformed(f"{operation.label} squeezes {list(value.shape)}", operation.label)
        sizes = [n for axis, n in enumerate(value.meta.shape) if axis not in gone]
    else:
        added = {_axis(operation, axis, value.ndim + len(axes)) for axis in axes}
        sizes = list(value.meta.shape)
        for axis in sorted(added):
            sizes.insert(axis, 1)
    return _reshaped(builder, operation, value, [BATCH, *sizes[1:]], False)


def _transpose(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    value = _value(operation, operands)
    dims = operation.attributes.get("perm", list(range(value.ndim))[::-1])
    if sorted(dims) != list(range(value.ndim)) or dims[0] != 0:
        raise unsupported(operation, f"perm {dims[:8]}: the batch has to stay first")
    return builder.function(operation, "permute", [value], dims=dims)


def _pad(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    value, attributes = _value(operation, operands), operation.attributes
    given, fill = _optional(operation, operands, 1), _optional(operation, operands, 2)
    if _optional(operation, operands, 3) is not None:
        raise unsupported(operation, "axes")
    pads = list(attributes.get("pads", [])) if given is None else integers(given)
    modes = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}
    mode = attributes.get("mode", "constant")
    half = len(pads) // 2
    if mode not in modes or half != value.ndim or any(pads[:1] + pads[half : half + 1]):
        raise unsupported(operation, f"mode {mode[:20]!r} with pads {pads[:16]}")
    if max(map(abs, pads)) > 2**12:
        raise malformed(f"{operation.label} has the pads {pads[:16]}", operation.label)
    widths = [
        width for axis in range(value.ndim - 1, 0, -1) for width in (pads[axis], pads[axis + half])
    ]
    while widths[-2:] == [0, 0] and len(widths) > 2:
        del widths[-2:]
    number = float(attributes.get("value", 0.0) if fill is None else fill.reshape(()))
    return builder.function(
        operation, "pad", [value], widths=widths, mode=modes[mode], value=number
    )


def _concat(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    values = [_value(operation, operands, place) for place in range(len(operands))]
    axis = _axis(operation, operation.attributes.get("axis", 0), values[0].ndim)
    return builder.function(operation, "concat", values, dim=axis)


def _slice(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    value, attributes = _value(operation, operands), operation.attributes
    if "starts" in attributes:
        lists = [np.array(attributes[n]) for n in ("starts", "ends")]
        axes = np.array(attributes["axes"]) if "axes" in attributes else None
        found = slices(value.ndim, lists[0], lists[1], axes, None)
    else:
        found = slices(
            value.ndim,
            _constant(operation, operands, 1),
            _constant(operation, operands, 2),
            _optional(operation, operands, 3),
            _optional(operation, operands, 4),
        )
    for axis, part in found:
        start, stop, step = part.indices(value.meta.shape[axis])
        if axis == 0 or step < 1:
            raise unsupported(operation, "it works along the batch, or backwards")
        value = builder.function(
            operation, "slice", [value], dim=axis, start=start, stop=stop, step=step
        )
    return value


def _gather(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    value, at = _value(operation, operands), _constant(operation, operands, 1)
    axis = _axis(operation, operation.attributes.get("axis", 0), value.ndim)
    size = value.meta.shape[axis]
    if at.size != 1 or not -size <= int(at.reshape(())) < size:
        raise unsupported(operation, "only one place of an axis can be gathered")
    start = int(at.reshape(())) % size
    part = builder.function(
        operation, "slice", [value], dim=axis, start=start, stop=start + 1, step=1
    )
    if at.ndim:
        return part
    sizes = [n for place, n in enumerate(part.shape, start=1) if place != axis]
    return _reshaped(builder, operation, part, [BATCH, *sizes], False)


def _split(builder: GraphBuilder, operation: Operation, operands: Operands) -> list[Operand]:
    value, attributes = _value(operation, operands), operation.attributes
    axis = _axis(operation, attributes.get("axis", 0), value.ndim)
    size, parts = value.meta.shape[axis], len(operation.outputs)
    given = _optional(operation, operands, 1)
    if given is not None or "split" in attributes:
        sizes = integers(given) if given is not None else list(attributes["split"])
    else:
        chunk = -(-size // parts)
        sizes = [min(chunk, size - chunk * place) for place in range(parts)]
    if sum(sizes) != size or len(sizes) != parts or min(sizes) < 1:
        raise malformed(f"{operation.label} splits {size} into {sizes[:8]}", operation.label)
    ends = np.cumsum(sizes).tolist()
    return [
        builder.function(operation, "slice", [value], dim=axis, start=end - n, stop=end, step=1)
        for end, n in zip(ends, sizes, strict=True)
    ]


def _clip(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    value = _value(operation, operands)
    bounds: list[float | None] = []
    for place, name in ((1, "min"), (2, "max")):
        given = _optional(operation, operands, place)
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


def _hard_sigmoid(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    value = _value(operation, operands)
    alpha = float(operation.attributes.get("alpha", 0.2))
    beta = float(operation.attributes.get("beta", 0.5))
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return builder.module(operation, "hard_sigmoid", value)
    return builder.function(operation, "affine_clamp", [value], alpha=alpha, beta=beta)


def _softmax_within(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    raise unsupported(operation, "a softmax is known only as the last operation")


def _module(op: str, **names: tuple[str, Any]) -> Rule:
    """A module of one tensor; ``names`` maps its options to an attribute and its default."""

    def rule(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
        attributes = operation.attributes
        options = {
            option: attributes.get(name, default) for option, (name, default) in names.items()
        }
        return builder.module(operation, op, _value(operation, operands), options)

    return rule


def _function(op: str) -> Rule:
    """A function of one tensor or of two, either of which may be a constant."""

    def rule(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
        given = [operand for operand in operands if operand is not None]
        return builder.function(operation, op, given)

    return rule


def _same(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    """What changes nothing in inference; the training mask of a dropout is not there."""
    return _value(operation, operands)


def _shape(builder: GraphBuilder, operation: Operation, operands: Operands) -> Array:
    sizes = [BATCH, *_value(operation, operands).shape]
    start, end = operation.attributes.get("start", 0), operation.attributes.get("end")
    return np.array(sizes[start:end], np.int64)


RULES: Mapping[str, Rule] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": matmul,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "Relu": _module("relu"),
    "LeakyRelu": _module("leaky_relu", slope=("alpha", 0.01)),
    "Elu": _module("elu", alpha=("alpha", 1.0)),
    "Clip": _clip,
    "HardSwish": _module("hard_swish"),
    "HardSigmoid": _hard_sigmoid,
    "Sigmoid": _module("sigmoid"),
    "Tanh": _module("tanh"),
    "Softplus": _module("softplus"),
    "Gelu": _module("gelu", approximate=("approximate", "none")),
    "Softmax": _softmax_within,
    "LogSoftmax": _softmax_within,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "ReduceMean": _reduce,
    "ReduceSum": _reduce,
    "ReduceMax": _reduce,
    "Add": _function("add"),
    "Sub": _function("sub"),
    "Mul": _function("mul"),
    "Div": _function("div"),
    "Pow": _function("pow"),
    "Erf": _function("erf"),
    "Exp": _function("exp"),
    "Sqrt": _function("sqrt"),
    "Neg": _function("neg"),
    "Abs": _function("abs"),
    "Reciprocal": _function("reciprocal"),
    "Concat": _concat,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _squeeze,
    "Pad": _pad,
    "Slice": _slice,
    "Gather": _gather,
    "Split": _split,
    "Shape": _shape,
    "Identity": _same,
    "Cast": _same,
    "Dropout": _same,
}
