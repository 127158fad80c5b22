"""Computes operations on constants at import time, such as shapes and transposed weights."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from atmc_core.networks.onnx.builder import BATCH, IMAGES
from atmc_core.networks.onnx.document import Array, Operation, malformed

#: The largest number of elements of one result, and of all results together.
MAX_ELEMENTS = 2**28
# The longest list of integers that an operand can be.
_MAX_LIST = 64
# The numbers of ONNX's types INT32, INT64 and BOOL.
_INTEGER_TYPES = (6, 7)
_BOOLEAN = 9


def fold(operation: Operation, inputs: Sequence[Array | None]) -> Array | None:
    """Compute an operation on constants.

    Args:
        operation: the operation.
        inputs: its operands; None for an optional one that is left out.

    Returns:
        The result, or None if there is no rule for the operation.

    Raises:
        InvalidInput: ``malformed_model`` if the operands do not fit, or the result is too large.
    """
    rule = _RULES.get(operation.op)
    if rule is None:
        return None
    try:
        with np.errstate(all="ignore"):
            result = np.asarray(rule(operation.attributes, *inputs))
    except (ValueError, IndexError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise malformed(f"{operation.label}: {error}", operation.label) from error
    if result.size > MAX_ELEMENTS:
        raise malformed(f"{operation.label} makes {result.size} numbers", operation.label)
    return result


def integers(array: Array | None) -> list[int]:
    """The integers of a constant that is a short list.

    Raises:
        ValueError: if it is no such list.
    """
    if array is None or array.ndim > 1 or array.size > _MAX_LIST:
        raise ValueError("a short list of whole numbers is expected")
    return [int(each) for each in array.reshape(-1)]


def slices(
    ndim: int, starts: Array, stops: Array, axes: Array | None, steps: Array | None
) -> list[tuple[int, slice]]:
    """The slices that ONNX's Slice makes.

    Args:
        ndim: the number of axes of the tensor.
        starts: the first index of each slice.
        stops: the index after the last one of each slice.
        axes: the axis of each slice; by default the first ones.
        steps: the distance between indices of each slice; by default 1.

    Returns:
        Pairs of an axis, at least 0, and its slice.

    Raises:
        ValueError: if an axis does not exist, or the lists do not fit.
    """
    first, last = integers(starts), integers(stops)
    along = list(range(len(first))) if axes is None else integers(axes)
    by = [1] * len(first) if steps is None else integers(steps)
    if not all(-ndim <= axis < ndim for axis in along):
        raise ValueError(f"axes {along} of {ndim}")
    rows = zip(along, first, last, by, strict=True)
    return [(axis % ndim, slice(start, stop, step)) for axis, start, stop, step in rows]


def _cast(attributes: Mapping[str, Any], x: Array) -> Array:
    if attributes["to"] in _INTEGER_TYPES:
        return x.astype(np.int64)
    return x.astype(np.bool_ if attributes["to"] == _BOOLEAN else np.float32)


def _reshape(attributes: Mapping[str, Any], x: Array, shape: Array) -> Array:
    wanted = integers(shape)
    if not attributes.get("allowzero"):
        wanted = [x.shape[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    return x.reshape(wanted)


def _unsqueeze(attributes: Mapping[str, Any], x: Array, axes: Array | None = None) -> Array:
    return np.expand_dims(x, tuple(attributes.get("axes") or integers(axes)))


def _squeeze(attributes: Mapping[str, Any], x: Array, axes: Array | None = None) -> Array:
    along = attributes.get("axes") or (None if axes is None else integers(axes))
    return np.squeeze(x, None if along is None else tuple(along))


def _slice(
    attributes: Mapping[str, Any],
    x: Array,
    starts: Array | None = None,
    stops: Array | None = None,
    axes: Array | None = None,
    steps: Array | None = None,
) -> Array:
    if starts is None or stops is None:
        starts, stops = np.array(attributes["starts"]), np.array(attributes["ends"])
        axes = np.array(attributes["axes"]) if "axes" in attributes else None
    index = [slice(None)] * x.ndim
    for axis, part in slices(x.ndim, starts, stops, axes, steps):
        index[axis] = part
    return x[tuple(index)]


def _concat(attributes: Mapping[str, Any], *parts: Array) -> Array:
    if sum(part.size for part in parts) > MAX_ELEMENTS:
        raise ValueError("its parts are too large together")
    return np.concatenate(parts, attributes["axis"])


def _gather(attributes: Mapping[str, Any], x: Array, at: Array) -> Array:
    axis = attributes.get("axis", 0)
    if at.size * (x.size // max(1, x.shape[axis])) > MAX_ELEMENTS:
        raise ValueError(f"{at.size} places are too many")
    return np.take(x, at.astype(np.int64), axis)


def _constant_of_shape(attributes: Mapping[str, Any], shape: Array) -> Array:
    sizes = integers(shape)
    if min(sizes, default=0) < 0 or np.prod([float(size) for size in sizes]) > MAX_ELEMENTS:
        raise ValueError(f"the shape {sizes}")
    value = attributes.get("value", np.zeros(1, np.float32))
    return np.full(sizes, value.reshape(()))


def _expand(attributes: Mapping[str, Any], x: Array, shape: Array) -> Array:
    sizes = np.broadcast_shapes(x.shape, tuple(integers(shape)))
    if np.prod([float(size) for size in sizes]) > MAX_ELEMENTS:
        raise ValueError(f"the shape {list(sizes)}")
    return np.broadcast_to(x, sizes)


def _range(attributes: Mapping[str, Any], start: Array, limit: Array, step: Array) -> Array:
    first, last, by = (float(each.reshape(())) for each in (start, limit, step))
    if [first, last, by] == [0, BATCH, 1]:
        # The places of the images in a batch, as many as shapes are computed for.
        return np.arange(IMAGES)
    if by == 0 or not abs((last - first) / by) < MAX_ELEMENTS:
        raise ValueError("its list is too long")
    return np.arange(first, last, by).astype(start.dtype)


def _product(attributes: Mapping[str, Any], x: Array, axes: Array | None = None) -> Array:
    along = attributes.get("axes") or (None if axes is None else integers(axes))
    keep = bool(attributes.get("keepdims", 1))
    return np.asarray(np.prod(x, None if along is None else tuple(along), keepdims=keep))


def _reduced(call: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    def rule(*inputs: Array) -> Array:
        result = inputs[0]
        for other in inputs[1:]:
            result = call(result, other)
        return result

    return _elementwise(rule)


def _divide(x: Array, y: Array) -> Array:
    # A quotient of integers is rounded towards zero in ONNX.
    return np.trunc(x / y).astype(np.int64) if x.dtype.kind == y.dtype.kind == "i" else x / y


def _elementwise(call: Callable[..., Array]) -> Callable[..., Array]:
    def rule(attributes: Mapping[str, Any], *inputs: Array) -> Array:
        sizes = [float(n) for n in np.broadcast_shapes(*(each.shape for each in inputs))]
        if np.prod(sizes) > MAX_ELEMENTS:
            raise ValueError(f"the shape {sizes}")
        return call(*inputs)

    return rule


_RULES: Mapping[str, Callable[..., Array]] = {
    "Identity": lambda attributes, x: x,
    "Cast": _cast,
    "Shape": lambda attributes, x: np.array(
        x.shape[attributes.get("start", 0) : attributes.get("end")], np.int64
    ),
    "Transpose": lambda attributes, x: np.transpose(x, attributes.get("perm")),
    "Reshape": _reshape,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Slice": _slice,
    "Concat": _concat,
    "Gather": _gather,
    "ConstantOfShape": _constant_of_shape,
    "Add": _elementwise(np.add),
    "Sub": _elementwise(np.subtract),
    "Mul": _elementwise(np.multiply),
    "Div": _elementwise(_divide),
    "Sqrt": _elementwise(np.sqrt),
    "Neg": _elementwise(np.negative),
    "Abs": _elementwise(np.abs),
    "Exp": _elementwise(np.exp),
    "Log": _elementwise(np.log),
    "Floor": _elementwise(np.floor),
    "Ceil": _elementwise(np.ceil),
    "Reciprocal": _elementwise(np.reciprocal),
    "Equal": _elementwise(np.equal),
    "Where": _elementwise(np.where),
    "Max": _reduced(np.maximum),
    "Min": _reduced(np.minimum),
    "Sum": _reduced(np.add),
    "Expand": _expand,
    "Range": _range,
    "ReduceProd": _product,
}
