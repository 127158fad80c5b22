"""Which step each of PyTorch's operations is."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from atmc_core.certification import sparse
from atmc_core.certification.refusal import NotProvable
from atmc_core.certification.relaxations import Curve, Relu, Searched
from atmc_core.certification.steps import Affine, Elementwise, Larger, Maximum, Step

aten = torch.ops.aten

# The largest absolute second derivatives, rounded up.
_SIGMOID, _TANH, _SOFTPLUS, _GELU, _SILU, _MISH = 0.0963, 0.7699, 0.25, 0.81, 0.5, 0.65
# The scale and the slope of selu (Klambauer et al., 2017).
_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805


@dataclass(frozen=True)
class Given:
    """An argument that depends on the images.

    Attributes:
        number: which of the step's inputs it is, from 0.
        shape: its shape, without the batch axis.
    """

    number: int
    shape: torch.Size


#: Given the arguments, the keyword arguments, the output's shape without the batch axis, and which
#: part of several outputs is meant, a rule returns the step; None if it does not know the case.
Rule = Callable[[Sequence[Any], Mapping[str, Any], torch.Size, int | None], Step | None]


def _shift_only(x: Any, function: Callable[[Tensor], Tensor]) -> Step | None:
    """A step of one input whose linear part has no negative coefficient."""
    return Affine(function, (x.shape,)) if isinstance(x, Given) else None


def _structural(args: Any, kwargs: Any, shape: torch.Size, part: int | None) -> Step | None:
    """Whatever gives an image's entries another shape, and keeps their order."""
    x = args[0]
    if x.shape.numel() != shape.numel():
        return None
    return Affine(
        lambda t: t.reshape(len(t), *shape),
        (x.shape,),
        transposed=lambda rows: [rows.reshape(len(rows), *x.shape)],
        separate=True,
    )


def _same(args: Any, kwargs: Any, shape: torch.Size, part: int | None) -> Step | None:
    x = args[0]
    return Affine(lambda t: t, (x.shape,), transposed=lambda rows: [rows], separate=True)


def _expand(args: Any, kwargs: Any, shape: torch.Size, part: int | None) -> Step | None:
    x = args[0]
    if len(x.shape) != len(shape):
        return None
    return _shift_only(x, lambda t: t.expand(len(t), *shape))


def _permute(args: Any, kwargs: Any, shape: torch.Size, part: int | None) -> Step | None:
    x, dims = args
    if dims[0] % len(dims) != 0:
        return None
    return Affine(lambda t: t.permute(dims), (x.shape,), separate=True)


def _transpose(args: Any, kwargs: Any, shape: torch.Size, part: int | None) -> Step | None:
    x, first, second = args
    count = len(x.shape) + 1
    if 0 in (first % count, second % count):
        return None
    return Affine(lambda t: t.transpose(first, second), (x.shape,), separate=True)


def _convolution(args: Any, kwargs: Any, shape: torch.Size, part: int | None) -> Step | None:
    x, weight, bias, stride, padding, dilation, transposed, extra, groups = args
    if not isinstance(x, Given) or weight.ndim != 4:
        return None
    weight = weight.contiguous()  # gradients would take over the channels' place as the last axis
    if transposed:

        def run(t: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
            return F.conv_transpose2d(t, w, b, stride, padding, extra, groups, dilation)

        return Affine(
            lambda t: run(t, weight, bias), (x.shape,), lambda t: run(t, weight.abs(), None)
        )
    settings = (stride, padding, dilation, groups)

    def transpose(rows: Tensor) -> list[Tensor]:
        # Of the input only shape and strides are read.
        like = rows.new_empty(len(rows), *x.shape)
        wanted = [True, False, False]
        found: tuple[Tensor, ...] = aten.convolution_backward.default(
            rows, like, weight, None, *settings[:3], False, [0, 0], groups, wanted
        )
        return [found[0]]

    return Affine(
        lambda t: F.conv2d(t, weight, bias, *settings),
        (x.shape,),
        lambda t: F.conv2d(t, weight.abs(), None, *settings),
        sparse.convolution(weight, x.shape, shape, *settings) or transpose,
    )


def _addmm(args: Any, kwargs: Any, shape: torch.Size, part: int | None) -> Step | None:
    bias, x, weight = args
    if kwargs or not isinstance(x, Given) or isinstance(weight, Given) or isinstance(bias, Given):
        return None
    return _product(x, weight, bias)


def _mm(args: Any, kwargs: Any, shape: torch.Size, part: int | None) -> Step | None:
    x, weight = args
    if not isinstance(x, Given) or isinstance(weight, Given) or weight.ndim != 2:
        return None
    return _product(x, weight, None)


def _product(x: Given, weight: Tensor, bias: Tensor | None) -> Step:
    return Affine(
        (lambda t: t @ weight) if bias is None else (lambda t: t @ weight + bias),
        (x.shape,),
        lambda t: t @ weight.abs(),
        sparse.product(weight) or (lambda rows: [rows @ weight.t()]),
    )


def _batch_norm(args: Any, kwargs: Any, shape: torch.Size, part: int | None) -> Step | None:
    if part != 0 or not isinstance(args[0], Given):
        return None
    x, weight, bias, mean, variance, *rest = args
    if len(rest) == 3:  # training, momentum, epsilon
        if rest[0]:
            return None
        rest = rest[1:]
    scale = (variance + rest[-1]).rsqrt() * (1 if weight is None else weight)
    shift = (0 if bias is None else bias) - mean * scale
    scale, shift = (each.view(-1, *[1] * (len(x.shape) - 1)) for each in (scale, shift))
    return _scaled(x, scale, shift)


def _scaled(x: Given, scale: Any, shift: Any) -> Step:
    """x times a constant plus another one, which do not depend on the image."""
    keeps = _keeps(x.shape, scale)
    return Affine(
        lambda t: t * scale + shift,
        (x.shape,),
        lambda t: t * abs(scale),
        (lambda rows: [rows * scale]) if keeps else None,
        separate=keeps,
    )


def _keeps(shape: torch.Size, factor: Any) -> bool:
    """Whether a product with the factor has the shape of its other side."""
    if not isinstance(factor, Tensor):
        return True
    return bool(torch.empty(1, *shape, device="meta").mul(factor.to("meta")).shape == (1, *shape))


def _sum(sign: int) -> Rule:
    """The sum of two tensors, or their difference, one of which may be constant."""

    def rule(args: Any, kwargs: Any, shape: torch.Size, part: int | None) -> Step | None:
        left, right, *rest = args
        factor = sign * (rest[0] if rest else kwargs.get("alpha", 1))
        if isinstance(left, Given) and isinstance(right, Given):
            same = left.shape == right.shape == shape
            return Affine(
                lambda a, b: a + factor * b,
                (left.shape, right.shape),
                lambda a, b: a + abs(factor) * b,
                (lambda rows: [rows, factor * rows]) if same else None,
            )
        if isinstance(left, Given):
            return _scaled(left, 1, factor * _same_for_all(right, shape))
        return _scaled(right, factor, _same_for_all(left, shape))

    return rule


def _same_for_all(value: Any, shape: torch.Size) -> Any:
    """A constant beside an output of a shape, without a batch axis of its own.

    Raises:
        NotProvable: if it differs between images.
    """
    if not isinstance(value, Tensor) or value.ndim <= len(shape) or len(value) == 1:
        return value
    if not (value == value[:1]).all():
        raise NotProvable("a constant differs between the images of a batch")
    return value[:1]


def _reverse_difference(args: Any, kwargs: Any, shape: torch.Size, part: int | None) -> Step | None:
    return _sum(-1)((args[1], args[0], *args[2:]), kwargs, shape, part)


def _times(args: Any, kwargs: Any, shape: torch.Size, part: int | None) -> Step | None:
    left, right = args
    if isinstance(left, Given) and isinstance(right, Given):
        return None
    x, factor = (left, right) if isinstance(left, Given) else (right, left)
    return _scaled(x, _same_for_all(factor, shape), 0)


def _over(args: Any, kwargs: Any, shape: torch.Size, part: int | None) -> Step | None:
    x, divisor = args
    if not isinstance(x, Given) or isinstance(divisor, Given) or kwargs:
        return None
    return _scaled(x, 1 / _same_for_all(divisor, shape), 0)


def _slice(args: Any, kwargs: Any, shape: torch.Size, part: int | None) -> Step | None:
    # A slice of all images is part of every index such as x[:, 1:].
    if (args[1] if len(args) > 1 else 0) == 0:
        return _same(args, kwargs, shape, part) if _all(*args[2:]) else None
    return _along(aten.slice.Tensor)(args, kwargs, shape, part)


def _all(start: int | None = None, stop: int | None = None, step: int = 1) -> bool:
    return start in (None, 0) and step == 1 and (stop is None or stop >= 2**31)


def _negative(args: Any, kwargs: Any, shape: torch.Size, part: int | None) -> Step | None:
    return _scaled(args[0], -1, 0)


def _concatenation(args: Any, kwargs: Any, shape: torch.Size, part: int | None) -> Step | None:
    parts = args[0]
    axis = (args[1] if len(args) > 1 else 0) % (len(shape) + 1)
    if axis == 0 or not all(isinstance(each, Given) for each in parts):
        return None
    # A tensor may come twice, and the step then reads it twice.
    return Affine(lambda *tensors: torch.cat(tensors, axis), tuple(each.shape for each in parts))


def _called(operation: Callable[..., Any]) -> Rule:
    """An operation of one input, linear without negative coefficients, with its own arguments."""

    def rule(args: Any, kwargs: Any, shape: torch.Size, part: int | None) -> Step | None:
        x, *rest = args
        if not isinstance(x, Given) or any(isinstance(each, Given) for each in rest):
            return None

        def run(t: Tensor) -> Tensor:
            found = operation(t, *rest, **kwargs)
            return found if part is None else found[part]  # type: ignore[no-any-return]

        return Affine(run, (x.shape,))

    return rule


def _along(operation: Callable[..., Any]) -> Rule:
    """As ``_called``, for an operation whose second argument is an axis, or several."""
    called = _called(operation)

    def rule(args: Any, kwargs: Any, shape: torch.Size, part: int | None) -> Step | None:
        axes = args[1] if len(args) > 1 else kwargs.get("dim", 0)
        axes = [axes] if isinstance(axes, int) else axes
        count = len(args[0].shape) + 1
        if not axes or any(axis % count == 0 for axis in axes):
            return None
        return called(args, kwargs, shape, part)

    return rule


def _split(operation: Callable[..., Any]) -> Rule:
    """A split into parts, whose third argument is the axis."""

    def rule(args: Any, kwargs: Any, shape: torch.Size, part: int | None) -> Step | None:
        axis = args[2] if len(args) > 2 else kwargs.get("dim", 0)
        if axis % (len(args[0].shape) + 1) == 0:
            return None
        return _called(operation)(args, kwargs, shape, part)

    return rule


def _padding(args: Any, kwargs: Any, shape: torch.Size, part: int | None) -> Step | None:
    x, widths, *rest = args
    value = rest[0] if rest else kwargs.get("value", 0.0)
    if not math.isfinite(value or 0.0):
        return None
    return _shift_only(x, lambda t: F.pad(t, widths, value=value or 0.0))


def _elementwise(make: Callable[..., Curve]) -> Rule:
    """A function of each entry; ``make`` gets the operation's other arguments."""

    def rule(args: Any, kwargs: Any, shape: torch.Size, part: int | None) -> Step | None:
        x, *rest = args
        if not isinstance(x, Given) or any(isinstance(each, Given) for each in rest):
            return None
        return Elementwise(make(*rest, **kwargs))

    return rule


def _clamped(low: Any = None, high: Any = None) -> Curve:
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        raise NotProvable("there are no bounds of clamp by a tensor")
    if low == 0 and high is None:
        return Relu()
    kinks = tuple(float(each) for each in (low, high) if each is not None)
    return Searched(lambda x: x.clamp(low, high), kinks=kinks, rises=True)


def _leaky(slope: float = 0.01) -> Curve:
    return Searched(lambda x: F.leaky_relu(x, slope), kinks=(0.0,), rises=slope >= 0)


def _prelu(weight: Tensor) -> Curve:
    return Searched(lambda x: torch.where(x > 0, x, weight * x), kinks=(0.0,))


def _elu(alpha: float = 1.0, scale: float = 1.0, inner: float = 1.0) -> Curve:
    def run(x: Tensor) -> Tensor:
        return scale * torch.where(x > 0, x, alpha * torch.expm1(inner * x.clamp_max(0)))

    return Searched(run, abs(scale * alpha) * inner**2, kinks=(0.0,))


def _softplus(beta: float = 1.0, threshold: float = 20.0) -> Curve:
    # Above the threshold PyTorch takes x itself, a little less.
    return Searched(
        lambda x: F.softplus(x, beta, threshold),
        _SOFTPLUS * beta,
        kinks=(threshold / beta,),
        rises=True,
    )


def _hard_swish() -> Curve:
    return Searched(F.hardswish, 1 / 3, kinks=(-3.0, 3.0))


def _windows(x: Given, options: Sequence[Any], function: Callable[[Tensor], Tensor]) -> Step:
    """A max pooling; ``options`` are what ``F.max_pool2d`` takes after the maps."""

    def winners(maps: Tensor) -> Tensor:
        _, places = F.max_pool2d(maps, *options, return_indices=True)
        return _within_image(places, x.shape)

    return Maximum(function, winners, x.shape)


def _within_image(places: Tensor, shape: torch.Size) -> Tensor:
    """Places within a map, as places within all maps of an image."""
    channels, *area = shape
    first = torch.arange(channels, device=places.device) * math.prod(area)
    return places + first.view(-1, *[1] * len(area))


def _max_pool(args: Any, kwargs: Any, shape: torch.Size, part: int | None) -> Step | None:
    x, kernel, *rest = args
    if part not in (None, 0) or not isinstance(x, Given) or len(x.shape) != 3:
        return None
    defaults: list[Any] = [None, 0, 1, False]
    stride, padding, dilation, ceil = rest + defaults[len(rest) :]
    options = (kernel, stride or None, padding, dilation, ceil)
    return _windows(x, options, lambda maps: F.max_pool2d(maps, *options))


def _adaptive_max_pool(args: Any, kwargs: Any, shape: torch.Size, part: int | None) -> Step | None:
    x, size = args
    if part not in (None, 0) or len(x.shape) != 3:
        return None

    def winners(maps: Tensor) -> Tensor:
        return _within_image(F.adaptive_max_pool2d(maps, size, return_indices=True)[1], x.shape)

    return Maximum(lambda maps: F.adaptive_max_pool2d(maps, size), winners, x.shape)


def _amax(args: Any, kwargs: Any, shape: torch.Size, part: int | None) -> Step | None:
    x, axes = args[:2]
    count = len(x.shape) + 1
    axes = sorted(axis % count for axis in ([axes] if isinstance(axes, int) else axes))
    if part not in (None, 0) or not axes or axes[0] == 0:
        return None
    keeps = [axis for axis in range(1, count) if axis not in axes]
    order = torch.arange(x.shape.numel()).view(x.shape)
    order = order.permute([axis - 1 for axis in (*keeps, *axes)])
    order = order.flatten(len(keeps)) if keeps else order.flatten()[None]

    def rows(t: Tensor) -> Tensor:
        return t.flatten(1)[:, order.to(t.device)]

    def winners(t: Tensor) -> Tensor:
        best = rows(t).argmax(-1, keepdim=True)
        places = order.to(t.device).expand(len(t), *order.shape).gather(-1, best).squeeze(-1)
        return places.reshape(len(t), *shape)

    return Maximum(lambda t: rows(t).amax(-1).reshape(len(t), *shape), winners, x.shape)


def _maximum(args: Any, kwargs: Any, shape: torch.Size, part: int | None) -> Step | None:
    left, right = args
    if not isinstance(left, Given) or not isinstance(right, Given):
        return None
    return Larger(shape) if left.shape == right.shape else None


#: The step of each operation.
RULES: Mapping[Any, Rule] = {
    aten.convolution.default: _convolution,
    aten.addmm.default: _addmm,
    aten.mm.default: _mm,
    aten.native_batch_norm.default: _batch_norm,
    aten._native_batch_norm_legit_no_training.default: _batch_norm,
    aten.cudnn_batch_norm.default: _batch_norm,
    aten.add.Tensor: _sum(1),
    aten.add.Scalar: _sum(1),
    aten.sub.Tensor: _sum(-1),
    aten.sub.Scalar: _sum(-1),
    aten.rsub.Tensor: _reverse_difference,
    aten.rsub.Scalar: _reverse_difference,
    aten.mul.Tensor: _times,
    aten.mul.Scalar: _times,
    aten.div.Tensor: _over,
    aten.div.Scalar: _over,
    aten.neg.default: _negative,
    **dict.fromkeys(
        [
            aten.view.default,
            aten._unsafe_view.default,
            aten.reshape.default,
            aten.squeeze.default,
            aten.squeeze.dim,
            aten.squeeze.dims,
            aten.unsqueeze.default,
        ],
        _structural,
    ),
    **dict.fromkeys(
        [
            aten.clone.default,
            aten.alias.default,
            aten.detach.default,
            aten.lift_fresh_copy.default,
            aten.contiguous.default,
        ],
        _same,
    ),
    aten.expand.default: _expand,
    aten.permute.default: _permute,
    aten.transpose.int: _transpose,
    aten.cat.default: _concatenation,
    aten.slice.Tensor: _slice,
    aten.constant_pad_nd.default: _padding,
    **{
        operation: _called(operation)
        for operation in (
            aten.reflection_pad2d.default,
            aten.replication_pad2d.default,
            aten.avg_pool2d.default,
            aten._adaptive_avg_pool2d.default,
            aten.adaptive_avg_pool2d.default,
            aten.upsample_nearest2d.default,
            aten.upsample_nearest2d.vec,
            aten.upsample_bilinear2d.default,
            aten.upsample_bilinear2d.vec,
            aten.pixel_shuffle.default,
            aten.channel_shuffle.default,
        )
    },
    **{
        operation: _along(operation)
        for operation in (
            aten.mean.dim,
            aten.sum.dim_IntList,
            aten.select.int,
            aten.unbind.int,
        )
    },
    **{
        operation: _split(operation)
        for operation in (
            aten.split.Tensor,
            aten.split_with_sizes.default,
            aten.chunk.default,
        )
    },
    aten.relu.default: _elementwise(Relu),
    aten.clamp.default: _elementwise(_clamped),
    aten.hardtanh.default: _elementwise(lambda low=-1.0, high=1.0: _clamped(low, high)),
    aten.clamp_min.default: _elementwise(_clamped),
    aten.clamp_max.default: _elementwise(lambda high: _clamped(None, high)),
    aten.leaky_relu.default: _elementwise(_leaky),
    aten._prelu_kernel.default: _elementwise(_prelu),
    aten.elu.default: _elementwise(_elu),
    aten.celu.default: _elementwise(lambda alpha=1.0: _elu(alpha, 1.0, 1 / alpha)),
    aten.selu.default: _elementwise(lambda: _elu(_SELU_ALPHA, _SELU_SCALE)),
    aten.sigmoid.default: _elementwise(lambda: Searched(torch.sigmoid, _SIGMOID, rises=True)),
    aten.tanh.default: _elementwise(lambda: Searched(torch.tanh, _TANH, rises=True)),
    aten.softplus.default: _elementwise(_softplus),
    aten.silu.default: _elementwise(lambda: Searched(F.silu, _SILU)),
    aten.mish.default: _elementwise(lambda: Searched(F.mish, _MISH)),
    aten.gelu.default: _elementwise(
        lambda approximate="none": Searched(lambda x: F.gelu(x, approximate=approximate), _GELU)
    ),
    aten.hardswish.default: _elementwise(_hard_swish),
    aten.hardsigmoid.default: _elementwise(
        lambda: Searched(F.hardsigmoid, kinks=(-3.0, 3.0), rises=True)
    ),
    aten.abs.default: _elementwise(lambda: Searched(torch.abs, kinks=(0.0,))),
    aten.max_pool2d_with_indices.default: _max_pool,
    aten.max_pool2d.default: _max_pool,
    aten.adaptive_max_pool2d.default: _adaptive_max_pool,
    aten.amax.default: _amax,
    aten.max.dim: _amax,
    aten.maximum.default: _maximum,
}
