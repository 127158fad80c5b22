"""Smooth backward passes: the gradients of a smoother function than the one that is computed.

Max pooling passes its gradient to the winner of each window alone, and rounding passes none at all.
A network can learn to hide behind that: its loss has no gradient in many pixels, so an attack finds
nothing although there is something to be found. Here outputs stay as they are, to the bit, and only
gradients change (backward pass differentiable approximation, BPDA):

- a maximum passes its gradient to all values, in shares by a softmax of them over a temperature,
  as the logarithm of a sum of exponentials does;
- clipping to two limits (``nn.Hardtanh``) passes its gradient on beyond them, too, the less the
  farther a value is from the nearer one, by a factor of e for each temperature; a network that
  learns a threshold is flat at nearly all pixels;
- rounding passes its gradient on unchanged.

ReLU and ReLU6, which is hardly ever at its upper limit, keep their gradients.

Source: Athalye, Carlini & Wagner, "Obfuscated Gradients Give a False Sense of Security" (ICML
2018), section 4.1.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from atmc_core.attacks.base import Model
from atmc_core.attacks.pooling import halve
from atmc_core.attacks.windows import Windows, adaptive

# Added to divisors, which may be zero.
_TINY = 1e-12
# On a CPU a backward pass takes about so many numbers at a time, which stay in the cache. (Measured
# for LeNet's first pooling: 43 us an image instead of 75 us.)
_AT_ONCE = 2**18

# Given maps, their maxima, the inverse temperature of each image and the gradient in the maxima, it
# returns the gradient in the maps.
_Shares = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class SmoothBackward(TorchFunctionMode):
    """A context in which maxima, clipping and roundings get smooth backward passes.

    Operations are recognised as they are called, whichever module calls them. Only those are
    touched whose gradient is needed.

    Args:
        temperature: that of the softmax by which a maximum shares its gradient, and of the falling
            gradient beyond the limits of clipping, above 0, in units of the standard deviation of
            an image's values there; so no factor on a layer matters.

    Attributes:
        count: how many operations have got another backward pass so far.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.count = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        smooth = _SMOOTH.get(func) if torch.is_grad_enabled() else None
        if smooth is not None:
            values = args[0] if args else kwargs.pop("input")
            if values.requires_grad:
                result = smooth(func, self.temperature, values, *args[1:], **kwargs)
                if result is not NotImplemented:
                    self.count += 1
                    return result
            args = (values, *args[1:])
        return func(*args, **kwargs)


def smoothed(model: Model, temperature: float) -> Model:
    """A model that computes the same, with smooth backward passes (see ``SmoothBackward``)."""

    def run(images: Tensor) -> Tensor:
        with SmoothBackward(temperature):
            return model(images)

    return run


def has_edges(model: Model, images: Tensor) -> bool:
    """Whether smooth backward passes differ from the model's own: it takes maxima, clips or rounds.

    Args:
        model: maps images to logits ``[N, classes]``; differentiable in its input.
        images: at least one, float ``[N, C, H, W]`` in [0, 1].
    """
    with SmoothBackward(1.0) as smooth, torch.enable_grad():
        model(images[:1].detach().requires_grad_())
    return bool(smooth.count)


class _Maximum(torch.autograd.Function):
    """Passes on maxima that are known already; their gradient goes to the maps, in shares."""

    @staticmethod
    def forward(
        context: Any, maps: Tensor, maxima: Tensor, shares: _Shares, temperature: float
    ) -> Tensor:
        context.save_for_backward(maps, maxima)
        context.shares, context.temperature = shares, temperature
        # A copy, because the next operation may write to it in place (`nn.ReLU(inplace=True)`).
        return maxima.clone()

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        maps, maxima = context.saved_tensors
        inverse = _inverse_temperature(maps, maxima, context.temperature)
        images = len(maps)
        if maps.device.type == "cpu":
            images = max(1, _AT_ONCE * len(maps) // max(maps.numel(), 1))
        parts = [each.split(images) for each in (maps, maxima, inverse, gradients[0])]
        found = [context.shares(*part) for part in zip(*parts, strict=True)]
        return found[0] if len(found) == 1 else torch.cat(found), None, None, None


def _inverse_temperature(maps: Tensor, maxima: Tensor, temperature: float) -> Tensor:
    """One over the temperature of each image, in the unit of the maps, ``[N, 1, ...]``."""
    deviation = _deviation(maps)
    # Maps that are padded with minus infinity have no deviation, but their maxima do.
    deviation = torch.where(deviation.isfinite(), deviation, _deviation(maxima))
    inverse = 1 / (deviation * temperature + _TINY)
    return inverse.to(maps.dtype).view(-1, *([1] * (maps.ndim - 1)))


def _deviation(values: Tensor) -> Tensor:
    """The standard deviation of each image's values, float32 ``[N]``."""
    # Channels come last in memory, so no value moves.
    rows = values.movedim(1, -1).flatten(1)
    count = rows.shape[1]
    mean = rows.sum(1, dtype=torch.float32) / count
    norm = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float32)
    variance: Tensor = norm.square() / count - mean.square()
    return variance.clamp_min(0).sqrt()


def _weights(maps: Tensor, maxima: Tensor, inverse: Tensor) -> Tensor:
    return torch.sub(maps, maxima).mul_(inverse).exp_()


def _over_axes(axes: tuple[int, ...]) -> _Shares:
    """The shares of maxima over whole axes, which the maxima have with a length of 1."""

    def shares(maps: Tensor, maxima: Tensor, inverse: Tensor, gradient: Tensor) -> Tensor:
        weights = _weights(maps, maxima, inverse)
        return weights.mul_(gradient / weights.sum(axes, keepdim=True))

    return shares


def _over_tiles(windows: Windows) -> _Shares:
    """The shares of maxima over two-dimensional windows that lie side by side."""

    def spread(values: Tensor) -> Tensor:
        rows, columns = (n * k for n, k in zip(values.shape[2:], windows.kernel, strict=True))
        return F.interpolate(values, (rows, columns), mode="nearest")

    def shares(maps: Tensor, maxima: Tensor, inverse: Tensor, gradient: Tensor) -> Tensor:
        below = spread(maxima)
        rows, columns = below.shape[2:]
        weights = _weights(maps[:, :, :rows, :columns], below, inverse)
        sums = F.avg_pool2d(weights, windows.kernel, divisor_override=1)
        weights.mul_(spread(gradient / sums))
        # Rows and columns that fill no window have no part in any maximum.
        rest = (0, maps.shape[3] - columns, 0, maps.shape[2] - rows)
        return F.pad(weights, rest) if any(rest) else weights

    return shares


def _over_windows(windows: Windows) -> _Shares:
    """The shares of maxima over any windows."""

    def shares(maps: Tensor, maxima: Tensor, inverse: Tensor, gradient: Tensor) -> Tensor:
        counts = maxima.shape[2:]
        padded, places = windows.padded(maps, counts), list(windows.parts(counts))
        weights = [_weights(padded[place], maxima, inverse) for place in places]
        ratio = gradient / torch.stack(weights).sum(0)
        result = torch.zeros_like(padded)
        for weight, place in zip(weights, places, strict=True):
            result[place] += weight.mul_(ratio)
        return windows.inside(result, maps.shape[2:])

    return shares


def _apply(maps: Tensor, maxima: Tensor, shares: _Shares, temperature: float) -> Tensor:
    result = _Maximum.apply(maps, maxima, shares, temperature)  # type: ignore[no-untyped-call]
    return cast(Tensor, result)


def _pool(axes: int) -> Callable[..., Any]:
    """The smooth form of a max pooling over so many axes."""

    def pool(
        func: Callable[..., Any],
        temperature: float,
        maps: Tensor,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Any:
        if maps.ndim != axes + 2:
            return NotImplemented
        windows = Windows.read(axes, kernel_size, stride, padding, dilation)
        tile = axes == 2 and windows.tile and not ceil_mode
        with torch.no_grad():
            found: Any
            if tile and windows.kernel == (2, 2) and func is F.max_pool2d:
                found = halve(maps)
            else:
                found = func(maps, kernel_size, stride, padding, dilation, ceil_mode)
        shares = _over_tiles(windows) if tile else _over_windows(windows)
        if isinstance(found, Tensor):
            return _apply(maps, found, shares, temperature)
        return _apply(maps, found[0], shares, temperature), found[1]

    return pool


def _adaptive_pool(axes: int) -> Callable[..., Any]:
    """The smooth form of an adaptive max pooling over so many axes: maxima axis by axis."""

    def pool(
        func: Callable[..., Any],
        temperature: float,
        maps: Tensor,
        output_size: Any,
        return_indices: bool = False,
    ) -> Any:
        if maps.ndim != axes + 2:
            return NotImplemented
        sizes = (output_size,) * axes if isinstance(output_size, int) else tuple(output_size)
        found = maps
        for axis, size in enumerate(sizes, 2):
            windows = adaptive(maps.shape[axis], maps.shape[axis] if size is None else size)
            parts = [found.narrow(axis, w.start, w.stop - w.start) for w in windows]
            found = torch.cat([_amax(temperature, part, (axis,)) for part in parts], axis)
        with torch.no_grad():
            plain = func(maps, output_size)
        return found if isinstance(plain, Tensor) else (found, plain[1])

    return pool


def _amax(temperature: float, maps: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The maxima over some axes, which stay with a length of 1."""
    with torch.no_grad():
        maxima = maps.amax(axes, keepdim=True)
    return _apply(maps, maxima, _over_axes(axes), temperature)


def _extreme(sign: int) -> Callable[..., Any]:
    """The smooth form of the largest (1) or smallest (-1) values over axes, or of two tensors."""

    def extreme(
        func: Callable[..., Any],
        temperature: float,
        values: Tensor,
        dim: int | Sequence[int] | Tensor | None = None,
        keepdim: bool = False,
        *,
        other: Tensor | None = None,
        axis: int | Sequence[int] | None = None,  # NumPy's name for ``dim``, which PyTorch takes
        **others: Any,
    ) -> Any:
        other = dim if isinstance(dim, Tensor) else other
        dim = dim if axis is None else axis
        if others:
            return NotImplemented
        if other is not None:
            if values.shape != other.shape or values.ndim < 2:
                return NotImplemented
            pair = torch.stack((values, other), -1)
            return sign * _amax(temperature, sign * pair, (values.ndim,)).squeeze(-1)
        if dim is None or isinstance(dim, Tensor):
            return NotImplemented
        axes = tuple(axis % values.ndim for axis in ((dim,) if isinstance(dim, int) else dim))
        # An image's temperature is its own, so images must stay apart.
        if not axes or 0 in axes:
            return NotImplemented
        found = sign * _amax(temperature, sign * values, axes)
        found = found if keepdim else found.squeeze(axes)
        with torch.no_grad():
            plain = func(values, dim, keepdim)
        return found if isinstance(plain, Tensor) else type(plain)((found, plain[1]))

    return extreme


def _clipped(
    func: Callable[..., Any],
    temperature: float,
    values: Tensor,
    low: Any = None,
    high: Any = None,
    inplace: bool = False,
    **options: Any,
) -> Any:
    """The smooth form of clipping to two numbers."""
    names = ("min_val", "max_val") if func is F.hardtanh else ("min", "max")
    low, high = options.pop(names[0], low), options.pop(names[1], high)
    if func is F.hardtanh:
        low, high = -1.0 if low is None else low, 1.0 if high is None else high
    numbers = isinstance(low, int | float) and isinstance(high, int | float)
    # nn.ReLU6 calls hardtanh from 0 to 6.
    relu6 = (low, high) == (0, 6)
    if options or values.ndim < 2 or not numbers or not low < high or relu6:
        return NotImplemented
    given = values.clone() if inplace else values
    result = _Clipping.apply(given, low, high, temperature)  # type: ignore[no-untyped-call]
    return values.copy_(result) if inplace else result


class _Clipping(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, values: Tensor, low: float, high: float, temperature: float
    ) -> Tensor:
        context.save_for_backward(values)
        context.low, context.high, context.temperature = low, high, temperature
        return values.clamp(low, high)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (values,) = context.saved_tensors
        inside = values.clamp(context.low, context.high)
        inverse = _inverse_temperature(values, inside, context.temperature)
        beyond = (inside - values).abs_()
        return gradients[0] * beyond.mul_(inverse).neg_().exp_(), None, None, None


def _rounded(func: Callable[..., Any], temperature: float, values: Tensor, **options: Any) -> Any:
    """The smooth form of a rounding: its gradient goes on unchanged."""
    return _Rounding.apply(values, func, options)  # type: ignore[no-untyped-call]


class _Rounding(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, values: Tensor, func: Callable[..., Any], options: Any) -> Tensor:
        return cast(Tensor, func(values, **options))

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0], None, None


# The smooth form of each function. It gets the function, the temperature and the function's own
# arguments, and returns NotImplemented where it does not know the case.
_SMOOTH: Mapping[Callable[..., Any], Callable[..., Any]] = {
    **dict.fromkeys([F.max_pool1d, torch.max_pool1d, F.max_pool1d_with_indices], _pool(1)),
    **dict.fromkeys([F.max_pool2d, torch.max_pool2d, F.max_pool2d_with_indices], _pool(2)),
    **dict.fromkeys([F.max_pool3d, torch.max_pool3d, F.max_pool3d_with_indices], _pool(3)),
    **dict.fromkeys(
        [F.adaptive_max_pool1d, torch.adaptive_max_pool1d, F.adaptive_max_pool1d_with_indices],
        _adaptive_pool(1),
    ),
    **dict.fromkeys([F.adaptive_max_pool2d, F.adaptive_max_pool2d_with_indices], _adaptive_pool(2)),
    **dict.fromkeys([F.adaptive_max_pool3d, F.adaptive_max_pool3d_with_indices], _adaptive_pool(3)),
    **dict.fromkeys([torch.amax, Tensor.amax, torch.max, Tensor.max], _extreme(1)),
    **dict.fromkeys([torch.maximum, Tensor.maximum], _extreme(1)),
    **dict.fromkeys([torch.amin, Tensor.amin, torch.min, Tensor.min], _extreme(-1)),
    **dict.fromkeys([torch.minimum, Tensor.minimum], _extreme(-1)),
    **dict.fromkeys([F.hardtanh, torch.clamp, Tensor.clamp, torch.clip, Tensor.clip], _clipped),
    **dict.fromkeys([torch.round, Tensor.round, torch.floor, Tensor.floor], _rounded),
    **dict.fromkeys([torch.ceil, Tensor.ceil, torch.trunc, Tensor.trunc], _rounded),
}
