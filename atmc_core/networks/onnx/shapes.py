"""Rules for operations that move entries: reshape, transpose, slice, pad.

The batch has to stay the first axis. See ``layers`` for what rules do.
"""

import numpy as np

from atmc_core.networks.graph.ir import MAX_FLOAT
from atmc_core.networks.onnx.builder import BATCH, GraphBuilder, Operand, Value, unsupported
from atmc_core.networks.onnx.document import Array, Operation, malformed
from atmc_core.networks.onnx.folding import integers, slices
from atmc_core.networks.onnx.operands import Operands, axis_of, constant_of, optional_of, value_of
from atmc_core.networks.onnx.pooling import MAX_PADDING

# At most this many places of an axis are picked one by one.
_MAX_PICKED = 256


def _reshaped(
    builder: GraphBuilder, operation: Operation, value: Value, sizes: list[int], copy_zero: bool
) -> Value:
    """Reshape each image's part.

    Args:
        builder: the graph.
        operation: the operation.
        value: its input.
        sizes: the new shape, with a first entry for the batch, in whatever way it is written.
        copy_zero: whether a size of 0 means that the axis keeps its size.
    """
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


def reshape(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    """Reshape to constant sizes."""
    value = value_of(operation, operands)
    sizes = integers(constant_of(operation, operands, 1))
    copy_zero = not operation.attributes.get("allowzero")
    return _reshaped(builder, operation, value, sizes, copy_zero)


def flatten(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    """Flatten to ``[N, features]``."""
    value = value_of(operation, operands)
    axis = operation.attributes.get("axis", 1)
    if axis not in (1, 1 - value.ndim):
        raise unsupported(operation, f"axis {axis}; 1 leaves the batch as it is")
    return _reshaped(builder, operation, value, [BATCH, int(np.prod(value.shape))], False)


def squeeze(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    """Squeeze or Unsqueeze along given axes."""
    value = value_of(operation, operands)
    axes = operation.attributes.get("axes")
    if axes is None:
        given = optional_of(operation, operands, 1)
        axes = None if given is None else integers(given)
    if axes is None:
        raise unsupported(operation, "it may squeeze the batch; name the axes")
    if operation.op == "Squeeze":
        gone = {axis_of(operation, axis, value.ndim) for axis in axes}
        if any(value.meta.shape[axis] != 1 for axis in gone):
            raise malformed(f"{operation.label} squeezes {list(value.shape)}", operation.label)
        sizes = [n for axis, n in enumerate(value.meta.shape) if axis not in gone]
    else:
        added = {axis_of(operation, axis, value.ndim + len(axes)) for axis in axes}
        sizes = list(value.meta.shape)
        for axis in sorted(added):
            sizes.insert(axis, 1)
    return _reshaped(builder, operation, value, [BATCH, *sizes[1:]], False)


def transpose(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    """Transpose with the batch axis first."""
    value = value_of(operation, operands)
    dims = operation.attributes.get("perm", list(range(value.ndim))[::-1])
    if sorted(dims) != list(range(value.ndim)) or dims[0] != 0:
        raise unsupported(operation, f"perm {dims[:8]}: the batch has to stay first")
    return builder.function(operation, "permute", [value], dims=dims)


def pad(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    """Pad all axes but the batch's."""
    value, attributes = value_of(operation, operands), operation.attributes
    given, fill = optional_of(operation, operands, 1), optional_of(operation, operands, 2)
    pads = list(attributes.get("pads", [])) if given is None else integers(given)
    some = optional_of(operation, operands, 3)
    if some is not None:
        pads = _for_all_axes(operation, value, pads, integers(some))
    modes = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}
    mode = attributes.get("mode", "constant")
    half = len(pads) // 2
    if mode not in modes or half != value.ndim or any(pads[:1] + pads[half : half + 1]):
        raise unsupported(operation, f"mode {mode[:20]!r} with pads {pads[:16]}")
    if max(map(abs, pads)) > MAX_PADDING:
        raise malformed(f"{operation.label} has the pads {pads[:16]}", operation.label)
    widths = [
        width for axis in range(value.ndim - 1, 0, -1) for width in (pads[axis], pads[axis + half])
    ]
    while widths[-2:] == [0, 0] and len(widths) > 2:
        del widths[-2:]
    number = float(attributes.get("value", 0.0) if fill is None else fill.reshape(()))
    # What infinity pads with is at most the largest number that a float32 holds; see ``ops.pad``.
    number = min(max(number, -MAX_FLOAT), MAX_FLOAT)
    return builder.function(
        operation, "pad", [value], widths=widths, mode=modes[mode], value=number
    )


def _for_all_axes(
    operation: Operation, value: Value, pads: list[int], axes: list[int]
) -> list[int]:
    """The pads of all axes, before and after, given those of some."""
    if len(pads) != 2 * len(axes) or not all(-value.ndim <= axis < value.ndim for axis in axes):
        raise malformed(f"{operation.label} has the axes {axes[:8]}", operation.label)
    result = [0] * (2 * value.ndim)
    for place, axis in enumerate(axes):
        result[axis % value.ndim] = pads[place]
        result[axis % value.ndim + value.ndim] = pads[place + len(axes)]
    return result


def concat(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    """Concat of results that depend on the images."""
    values = [value_of(operation, operands, place) for place in range(len(operands))]
    axis = axis_of(operation, operation.attributes.get("axis", 0), values[0].ndim)
    return builder.function(operation, "concat", values, dim=axis)


def slice_axes(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    """Slice along any axes but the batch's: one node for each axis."""
    value, attributes = value_of(operation, operands), operation.attributes
    if "starts" in attributes:
        lists = [np.array(attributes[n]) for n in ("starts", "ends")]
        axes = np.array(attributes["axes"]) if "axes" in attributes else None
        found = slices(value.ndim, lists[0], lists[1], axes, None)
    else:
        found = slices(
            value.ndim,
            constant_of(operation, operands, 1),
            constant_of(operation, operands, 2),
            optional_of(operation, operands, 3),
            optional_of(operation, operands, 4),
        )
    for axis, part in found:
        start, stop, step = part.indices(value.meta.shape[axis])
        if axis == 0:
            raise unsupported(operation, "it works along the batch")
        if step < 1:
            value = _picked(builder, operation, value, axis, list(range(start, stop, step)))
            continue
        value = builder.function(
            operation, "slice", [value], dim=axis, start=start, stop=stop, step=step
        )
    return value


def gather(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    """Gather of one or several indices along an axis: slices."""
    value, at = value_of(operation, operands), constant_of(operation, operands, 1)
    axis = axis_of(operation, operation.attributes.get("axis", 0), value.ndim)
    size = value.meta.shape[axis]
    if at.ndim > 1 and at.size > 1:
        raise unsupported(operation, "its indices have to be a list")
    if not all(-size <= int(index) < size for index in at.reshape(-1)[:_MAX_PICKED]):
        raise malformed(f"{operation.label} gathers what is not there", operation.label)
    places = [int(index) % size for index in at.reshape(-1)[: _MAX_PICKED + 1]]
    part = _picked(builder, operation, value, axis, places)
    if at.ndim:
        return part
    sizes = [n for place, n in enumerate(part.shape, start=1) if place != axis]
    return _reshaped(builder, operation, part, [BATCH, *sizes], False)


def _picked(
    builder: GraphBuilder, operation: Operation, value: Value, axis: int, places: list[int]
) -> Value:
    """Certain places along an axis: a slice for each run of them, put together."""
    if not 1 <= len(places) <= _MAX_PICKED:
        raise unsupported(
            operation, f"from 1 to {_MAX_PICKED} places of an axis can be picked or turned around"
        )
    runs: list[list[int]] = []
    for place in places:
        if runs and place == runs[-1][1]:
            runs[-1][1] += 1
        else:
            runs.append([place, place + 1])
    parts = [
        builder.function(operation, "slice", [value], dim=axis, start=start, stop=stop, step=1)
        for start, stop in runs
    ]
    return parts[0] if len(parts) == 1 else builder.function(operation, "concat", parts, dim=axis)


def expand(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    """Expand to constant sizes."""
    value, sizes = value_of(operation, operands), integers(constant_of(operation, operands, 1))
    if len(sizes) < value.ndim:
        sizes = [1] * (value.ndim - len(sizes)) + sizes
    if len(sizes) > value.ndim:
        raise unsupported(operation, "it adds axes in front of the batch")
    shape = [max(own, wanted) for own, wanted in zip(value.shape, sizes[1:], strict=True)]
    if shape == list(value.shape):
        return value
    return builder.function(operation, "expand", [value], shape=shape)


def split(builder: GraphBuilder, operation: Operation, operands: Operands) -> list[Operand]:
    """Split along an axis: a slice for each output."""
    value, attributes = value_of(operation, operands), operation.attributes
    axis = axis_of(operation, attributes.get("axis", 0), value.ndim)
    size, parts = value.meta.shape[axis], len(operation.outputs)
    given = optional_of(operation, operands, 1)
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


def shape(builder: GraphBuilder, operation: Operation, operands: Operands) -> Array:
    """Shape: a constant, in which ``BATCH`` stands for the size of the batch."""
    sizes = [BATCH, *value_of(operation, operands).shape]
    start, end = operation.attributes.get("start", 0), operation.attributes.get("end")
    return np.array(sizes[start:end], np.int64)
