"""The operations that a graph may contain; each is a module or a function of tensors.

Tensors are float ``[N, ...]``; the first axis is the batch.
"""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atmc_core.networks.graph.windows import MeanOfUnevenWindows

# A constant beyond this pads with infinity: the largest float32 is more than bfloat16 holds.
_NEARLY_INFINITE = 3.38e38


def reshape(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Give each image's part another shape; ``shape`` is without the batch axis."""
    return x.reshape(x.shape[0], *shape)


def permute(x: Tensor, dims: Sequence[int]) -> Tensor:
    """Put the axes into the order ``dims``, in which the batch axis stays first."""
    return x.permute(*dims)


def concat(*parts: Tensor, dim: int) -> Tensor:
    """Concatenate tensors along the axis ``dim``."""
    return torch.cat(parts, dim)


def pad(x: Tensor, widths: Sequence[int], mode: str, value: float) -> Tensor:
    """Pad a tensor.

    Args:
        x: the tensor.
        widths: the widths before and after each axis, beginning with the last axis.
        mode: ``constant``, ``reflect`` or ``replicate``.
        value: the constant; one beyond 3.38e38 stands for infinity.
    """
    if abs(value) > _NEARLY_INFINITE:
        value = math.copysign(math.inf, value)
    return F.pad(x, list(widths), mode, value if mode == "constant" else None)


def mean(x: Tensor, dims: Sequence[int], keepdim: int) -> Tensor:
    """The mean over some axes."""
    return x.mean(tuple(dims), keepdim=bool(keepdim))


def total(x: Tensor, dims: Sequence[int], keepdim: int) -> Tensor:
    """The sum over some axes."""
    return x.sum(tuple(dims), keepdim=bool(keepdim))


def largest(x: Tensor, dims: Sequence[int], keepdim: int) -> Tensor:
    """The maximum over some axes."""
    return x.amax(tuple(dims), keepdim=bool(keepdim))


def cut(x: Tensor, dim: int, start: int, stop: int, step: int) -> Tensor:
    """Slice a tensor along the axis ``dim``."""
    index = [slice(None)] * x.ndim
    index[dim] = slice(start, stop, step)
    return x[tuple(index)]


def norm(x: Tensor, dims: Sequence[int], keepdim: int) -> Tensor:
    """The Euclidean norm over some axes; where it is zero, so is its gradient."""
    result: Tensor = torch.linalg.vector_norm(x, dim=tuple(dims), keepdim=bool(keepdim))
    return result


def logsumexp(x: Tensor, dims: Sequence[int], keepdim: int) -> Tensor:
    """The logarithm of the sum of the exponentials over some axes."""
    return x.logsumexp(tuple(dims), keepdim=bool(keepdim))


def expand(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Repeat entries so that each image's part gets a shape; it is without the batch axis."""
    return x.expand(x.shape[0], *shape)


def resize(x: Tensor, size: Sequence[int], mode: str, corners: int) -> Tensor:
    """Resize maps ``[N, C, H, W]``.

    Args:
        x: the maps.
        size: the new height and width.
        mode: ``nearest``, ``bilinear`` or ``bicubic``.
        corners: whether the maps' corners stay where they are; not with ``nearest``.
    """
    if mode == "nearest":
        return F.interpolate(x, tuple(size), mode=mode)
    return F.interpolate(x, tuple(size), mode=mode, align_corners=bool(corners))


def clamp(x: Tensor, low: float | None = None, high: float | None = None) -> Tensor:
    """Clamp values to at least ``low`` and at most ``high``; None is no bound."""
    return x.clamp(low, high)


def affine_clamp(x: Tensor, alpha: float, beta: float) -> Tensor:
    """ONNX's HardSigmoid: alpha * x + beta, clamped to [0, 1]."""
    return (alpha * x + beta).clamp(0, 1)


def _conv(options: Mapping[str, Any]) -> nn.Module:
    padding = tuple(options["padding"])
    return nn.Conv2d(
        options["inputs"],
        options["outputs"],
        tuple(options["kernel"]),
        tuple(options["stride"]),
        padding,
        tuple(options["dilation"]),
        options["groups"],
        bias=bool(options["bias"]),
    )


def _max_pool(options: Mapping[str, Any]) -> nn.Module:
    return nn.MaxPool2d(
        tuple(options["kernel"]),
        tuple(options["stride"]),
        tuple(options["padding"]),
        tuple(options["dilation"]),
        ceil_mode=bool(options["ceil"]),
    )


def _average_pool(options: Mapping[str, Any]) -> nn.Module:
    if len(options["padding"]) > 2:
        return MeanOfUnevenWindows(options["kernel"], options["stride"], options["padding"])
    return nn.AvgPool2d(
        tuple(options["kernel"]),
        tuple(options["stride"]),
        tuple(options["padding"]),
        ceil_mode=bool(options["ceil"]),
        count_include_pad=bool(options["count_padding"]),
    )


def _clip(options: Mapping[str, Any]) -> nn.Module:
    low, high = options["low"], options["high"]
    return nn.ReLU6() if (low, high) == (0, 6) else nn.Hardtanh(low, high)


def _batch_norm(options: Mapping[str, Any]) -> nn.Module:
    return nn.BatchNorm2d(options["features"], eps=options["eps"], momentum=options["momentum"])


def _feature_norm(options: Mapping[str, Any]) -> nn.Module:
    return nn.BatchNorm1d(options["features"], eps=options["eps"], momentum=options["momentum"])


def _group_norm(options: Mapping[str, Any]) -> nn.Module:
    return nn.GroupNorm(options["groups"], options["features"], eps=options["eps"])


def _response_norm(options: Mapping[str, Any]) -> nn.Module:
    return nn.LocalResponseNorm(options["size"], options["alpha"], options["beta"], options["k"])


def _layer_norm(options: Mapping[str, Any]) -> nn.Module:
    return nn.LayerNorm(list(options["shape"]), eps=options["eps"], bias=bool(options["bias"]))


#: The operations of one tensor that are modules: functions from options to the module.
MODULES: Mapping[str, Callable[[Mapping[str, Any]], nn.Module]] = {
    "conv": _conv,
    "linear": lambda o: nn.Linear(o["inputs"], o["outputs"], bias=bool(o["bias"])),
    "batch_norm": _batch_norm,
    "feature_norm": _feature_norm,
    "group_norm": _group_norm,
    "response_norm": _response_norm,
    "layer_norm": _layer_norm,
    "max_pool": _max_pool,
    "average_pool": _average_pool,
    "adaptive_average_pool": lambda o: nn.AdaptiveAvgPool2d(tuple(o["size"])),
    "relu": lambda o: nn.ReLU(),
    "leaky_relu": lambda o: nn.LeakyReLU(o["slope"]),
    "elu": lambda o: nn.ELU(o["alpha"]),
    "celu": lambda o: nn.CELU(o["alpha"]),
    "prelu": lambda o: nn.PReLU(o["slopes"]),
    "mish": lambda o: nn.Mish(),
    "clip": _clip,
    "hard_swish": lambda o: nn.Hardswish(),
    "hard_sigmoid": lambda o: nn.Hardsigmoid(),
    "sigmoid": lambda o: nn.Sigmoid(),
    "tanh": lambda o: nn.Tanh(),
    "softplus": lambda o: nn.Softplus(),
    "gelu": lambda o: nn.GELU(approximate=o["approximate"]),
}

#: The operations that are functions, with the number of their inputs (None: any number).
FUNCTIONS: Mapping[str, tuple[Callable[..., Tensor], int | None]] = {
    "add": (operator.add, 2),
    "sub": (operator.sub, 2),
    "mul": (operator.mul, 2),
    "div": (operator.truediv, 2),
    "pow": (operator.pow, 2),
    "erf": (torch.erf, 1),
    "exp": (torch.exp, 1),
    "log": (torch.log, 1),
    "sqrt": (torch.sqrt, 1),
    "neg": (torch.neg, 1),
    "abs": (torch.abs, 1),
    "reciprocal": (torch.reciprocal, 1),
    "maximum": (torch.maximum, 2),
    "minimum": (torch.minimum, 2),
    "reshape": (reshape, 1),
    "expand": (expand, 1),
    "resize": (resize, 1),
    "permute": (permute, 1),
    "concat": (concat, None),
    "pad": (pad, 1),
    "mean": (mean, 1),
    "sum": (total, 1),
    "max": (largest, 1),
    "norm": (norm, 1),
    "logsumexp": (logsumexp, 1),
    "slice": (cut, 1),
    "clamp": (clamp, 1),
    "affine_clamp": (affine_clamp, 1),
}

#: The operations without an input: a tensor of the state dict, or a number.
PARAMETER, BUFFER, NUMBER = "parameter", "buffer", "number"
