"""The operations of PyTorch that are more than something on each entry by itself, as kernels."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from atmc_core.codegen import kernels
from atmc_core.codegen.convolutions import Convolution
from atmc_core.codegen.expressions import SAME_ENTRY, Expression, Held
from atmc_core.codegen.refusal import NotCovered
from atmc_core.codegen.values import Value

if TYPE_CHECKING:
    from atmc_core.codegen.lowering import Lowering

aten = torch.ops.aten

_RESHAPES = {aten.view.default, aten._unsafe_view.default, aten.reshape.default}
_SAME = {aten.clone.default, aten.lift_fresh_copy.default}
# The longest row of a product with several rows, see ``_rows``.
_LONGEST_ROW = 2048


# What is seen or put in another way.


def view(lowering: "Lowering", target: Any, args: Any, kwargs: Any) -> Any:
    """What an operation makes that only sees the same memory in another way."""
    value = lowering.value(args[0])
    seen = target(value.view, *args[1:], **kwargs)
    if isinstance(seen, Tensor):
        return value.seen(seen)
    return tuple(value.seen(each) for each in seen)


def _reshaped(lowering: "Lowering", held: Held, shape: Sequence[int]) -> Value:
    value = lowering.value(held)
    try:
        return value.seen(value.view.view(list(shape)))
    except RuntimeError:
        value = lowering.whole(value)
        return value.seen(value.view.view(list(shape)))


def moved(lowering: "Lowering", target: Any, args: Any, kwargs: Any) -> Value:
    """What an operation makes that puts entries elsewhere, whatever their values."""
    value = lowering.value(args[0])
    # The places are exact in double precision, which more operations take than integers.
    places = value.positions().double()
    found = target(places, *args[1:], **kwargs)
    out = Value.new(found.shape)
    lowering.kernels.append(kernels.gather(value, out, found.long()))
    return out


def _joined(lowering: "Lowering", parts: Sequence[Held], dim: int = 0) -> Value:
    held = (_constant(part) if isinstance(part, Tensor) else part for part in parts)
    values = [lowering.value(part) for part in held if math.prod(shape_of(part)) > 0]
    out = Value.new(torch.cat([value.view for value in values], dim).shape)
    targets, start = [], 0
    for value in values:
        length = value.view.shape[dim]
        targets.append((value, out.seen(out.view.narrow(dim, start, length))))
        start += length
    lowering.kernels.append(kernels.copies(targets, out, None))
    return out


def _written_into(
    part: Callable[..., Tensor], lowering: "Lowering", held: Held, new: Held, *place: Any
) -> Value:
    """A tensor with a part of it replaced, which ``part`` picks out of it."""
    value, into = lowering.value(held), lowering.value(new)
    out = Value.new(value.view.shape)
    target = out.seen(part(out.view, *place))
    lowering.kernels.append(kernels.copies([(value, out), (into, target)], out, None))
    return out


def _constant(tensor: Tensor) -> Held:
    return Expression(SAME_ENTRY, (tensor.float(),), {}, tensor.shape)


def _padded(lowering: "Lowering", held: Held, widths: Sequence[int], fill: float = 0.0) -> Value:
    value = lowering.value(held)
    shape, seen = list(value.view.shape), value.view
    inside = []
    for pair, axis in enumerate(range(len(shape) - 1, len(shape) - 1 - len(widths) // 2, -1)):
        before, after = widths[2 * pair : 2 * pair + 2]
        cut = max(0, -before)
        length = shape[axis] - cut - max(0, -after)
        seen = seen.narrow(axis, cut, length)
        inside.append((axis, max(0, before), length))
        shape[axis] += before + after
    out = Value.new(shape)
    target = out.view
    for axis, start, length in inside:
        target = target.narrow(axis, start, length)
    lowering.kernels.append(kernels.copies([(value.seen(seen), out.seen(target))], out, fill))
    return out


# Sums with weights.


def convolution_of(
    lowering: "Lowering",
    source: Held,
    weight: Any,
    bias: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    extra: Sequence[int],
    groups: int,
) -> Convolution:
    """The convolution that an operation asks for, still to be written."""
    if transposed or not isinstance(weight, Tensor) or weight.ndim != 4:
        raise NotCovered("a convolution that is transposed, not over images, or by results")
    value = lowering.whole(source)
    weight = weight.double()
    outputs = len(weight)
    bias = torch.zeros(outputs) if bias is None else bias
    steps, borders, gaps = _pair(stride), _pair(padding), _pair(dilation)
    shape = F.conv2d(
        value.view, weight.float().to("meta"), None, steps, borders, gaps, groups
    ).shape
    if value.buffer is lowering.image:
        # A convolution may read a few floats beyond a map's end, where the image's may end.
        value = lowering.copied(value)
    return Convolution(value, weight, bias.double(), steps, borders, gaps, groups, shape)


def _rows(lowering: "Lowering", source: Held, weight: Any, bias: Tensor | None = None) -> Value:
    """Rows ``[M, inputs]`` times a constant matrix ``[inputs, outputs]``, plus a bias."""
    if isinstance(source, Tensor):
        if isinstance(weight, Tensor):
            raise NotCovered("a product of constants")
        # A constant on the left: the same with rows and columns changed over.
        seen = lowering.value(weight)
        return _transposed(_rows(lowering, _transposed(seen), source.T))
    if not isinstance(weight, Tensor):
        a, b = lowering.value(source), lowering.value(weight)
        product = _products(lowering, _with_axis(a), _with_axis(b))
        return product.seen(product.view[0])
    value = lowering.value(source)
    rows, inputs = value.view.shape
    outputs = weight.shape[1]
    matrix = weight.T.double()
    bias = torch.zeros(outputs) if bias is None else bias.flatten().expand(outputs)
    if rows == 1:
        value, out = lowering.whole(value), Value.new((1, outputs))
        lowering.kernels.append(kernels.product(value, matrix, bias.double(), out))
        return out
    # Several rows are the pixels of an image, and the product is a convolution of 1x1.
    turned = lowering.whole(_transposed(value))
    row = max(size for size in range(1, min(rows, _LONGEST_ROW) + 1) if rows % size == 0)
    seen = turned.seen(turned.view.view(1, inputs, rows // row, row))
    weighed = Convolution(
        seen,
        matrix.reshape(outputs, inputs, 1, 1),
        bias.double(),
        (1, 1),
        (0, 0),
        (1, 1),
        1,
        torch.Size((1, outputs, rows // row, row)),
    )
    made = lowering.value(weighed)
    return _transposed(made.seen(made.view.view(outputs, rows)))


def _rows_and_bias(
    lowering: "Lowering", bias: Any, source: Held, weight: Any, *, beta: float = 1, alpha: float = 1
) -> Value:
    if not isinstance(weight, Tensor) or not isinstance(bias, Tensor):
        raise NotCovered("a product with a bias that is not constant")
    return _rows(lowering, source, weight * alpha, bias * beta)


def _resized(lowering: "Lowering", source: Held, resize: Callable[[Tensor], Tensor]) -> Value:
    """A linear change of the size of maps, whose rows and columns are separate.

    Args:
        source: the maps, ``[1, C, H, W]``.
        resize: maps them to another size.
    """
    value = lowering.whole(source)
    _, channels, height, width = value.view.shape
    # What becomes of a map with a single one in it: along a row, then along a column.
    flat, tall = torch.eye(width).view(width, 1, 1, width), torch.eye(height)
    columns = resize(flat.expand(-1, -1, height, -1))[:, 0, 0]
    rows = resize(tall.view(height, 1, height, 1).expand(-1, -1, -1, width))[:, 0, :, 0]
    first = _rows(lowering, _reshaped(lowering, value, [channels * height, width]), columns)
    seen = _reshaped(lowering, first, [channels, height, columns.shape[1]])
    turned = lowering.whole(seen.seen(seen.view.transpose(1, 2)))
    second = _rows(lowering, _reshaped(lowering, turned, [-1, height]), rows)
    shaped = _reshaped(lowering, second, [1, channels, columns.shape[1], rows.shape[1]])
    return shaped.seen(shaped.view.transpose(2, 3))


def _products(lowering: "Lowering", first: Held, second: Held) -> Value:
    a, b = (
        lowering.whole(_constant(each) if isinstance(each, Tensor) else each)
        for each in (first, second)
    )
    out = Value.new((a.view.shape[0], a.view.shape[1], b.view.shape[2]))
    lowering.kernels.append(kernels.products(a, b, out))
    return out


# Windows and sums.


def _max_pool(
    lowering: "Lowering",
    source: Held,
    size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    ceil: bool = False,
) -> tuple[Value, None]:
    value = lowering.whole(source)
    window = kernels.Window(_pair(size), _pair(stride or size), _pair(padding), _pair(dilation))
    made = F.max_pool2d(
        value.view, window.size, window.stride, window.padding, window.dilation, ceil
    )
    out = Value.new(made.shape)
    lowering.kernels.append(kernels.pool(value, out, window, None))
    return out, None


def _average_pool(
    lowering: "Lowering",
    source: Held,
    size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    ceil: bool = False,
    count_padding: bool = True,
    divisor: int | None = None,
) -> Value:
    value = lowering.whole(source)
    window = kernels.Window(_pair(size), _pair(stride or size), _pair(padding), (1, 1))
    ones = torch.ones(1, 1, *value.view.shape[2:])
    settings = (window.size, window.stride, window.padding, ceil, count_padding)
    means, sums = F.avg_pool2d(ones, *settings, divisor), F.avg_pool2d(ones, *settings, 1)
    out = Value.new((1, value.view.shape[1], *means.shape[2:]))
    lowering.kernels.append(kernels.pool(value, out, window, (sums / means)[0, 0]))
    return out


def _reduced(
    lowering: "Lowering",
    source: Held,
    dims: Any,
    keepdim: bool,
    maximum: bool = False,
    mean: bool = False,
) -> Value:
    value = lowering.value(source)
    axes = range(value.view.ndim) if dims is None or dims == [] else _listed(dims)
    over = sorted({axis % value.view.ndim for axis in axes})
    shape = [1 if axis in over else size for axis, size in enumerate(value.view.shape)]
    out = Value.new(shape)
    count = math.prod(value.view.shape[axis] for axis in over)
    factor = 1 / count if mean else 1.0
    lowering.kernels.append(kernels.reduction(value, out, over, maximum, factor))
    left = [size for axis, size in enumerate(shape) if keepdim or axis not in over]
    return out.seen(out.view.view(left))


def _converted(lowering: "Lowering", held: Held, dtype: Any = torch.float32, **_: Any) -> Value:
    if not dtype.is_floating_point:
        raise NotCovered(f"a conversion to {dtype}")
    return lowering.value(held)


def _on_maps(operation: Callable[..., Tensor], settings: Sequence[Any], maps: Tensor) -> Tensor:
    return operation(maps, *settings)


def shape_of(held: Held) -> torch.Size:
    """The shape of something held."""
    return held.view.shape if isinstance(held, Value) else held.shape


def _transposed(value: Value) -> Value:
    return value.seen(value.view.T)


def _with_axis(value: Value) -> Value:
    return value.seen(value.view.unsqueeze(0))


def _pair(numbers: Sequence[int]) -> tuple[int, int]:
    first, *others = numbers
    return first, others[0] if others else first


def _listed(dims: Any) -> Sequence[int]:
    return [dims] if isinstance(dims, int) else list(dims)


#: What writes each operation, given the lowering and the operation's arguments.
RULES: dict[Any, Callable[..., Any]] = {
    **{
        operation: lambda lowering, x, *settings, operation=operation: _resized(
            lowering, x, partial(_on_maps, operation, settings)
        )
        for operation in (
            aten.upsample_bilinear2d.default,
            aten.upsample_bicubic2d.default,
            aten._adaptive_avg_pool2d.default,
        )
    },
    **dict.fromkeys(_RESHAPES, _reshaped),
    **dict.fromkeys(_SAME, lambda lowering, x, **_: lowering.value(x)),
    aten._to_copy.default: _converted,
    aten.cat.default: _joined,
    aten.slice_scatter.default: partial(_written_into, aten.slice.Tensor),
    aten.select_scatter.default: partial(_written_into, aten.select.int),
    aten.constant_pad_nd.default: _padded,
    aten.mm.default: _rows,
    aten.addmm.default: _rows_and_bias,
    aten.bmm.default: _products,
    aten.max_pool2d_with_indices.default: _max_pool,
    aten.avg_pool2d.default: _average_pool,
    aten.mean.dim: lambda lowering, x, dims, keepdim=False, **_: _reduced(
        lowering, x, dims, keepdim, mean=True
    ),
    aten.sum.dim_IntList: lambda lowering, x, dims, keepdim=False, **_: _reduced(
        lowering, x, dims, keepdim
    ),
    aten.sum.default: lambda lowering, x, **_: _reduced(lowering, x, None, False),
    aten.amax.default: lambda lowering, x, dims=None, keepdim=False: _reduced(
        lowering, x, dims, keepdim, maximum=True
    ),
}
