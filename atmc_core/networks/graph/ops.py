"""The operations that a graph may contain; each is a module or a function of tensors.

Tensors are float ``[N, ...]``; the first axis is the batch.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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
        value: the constant.
    """
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


def _layer_norm(options: Mapping[str, Any]) -> nn.Module:
    return nn.LayerNorm(list(options["shape"]), eps=options["eps"], bias=bool(options["bias"]))


#: The operations of one tensor that are modules: functions from options to the module.
MODULES: Mapping[str, Callable[[Mapping[str, Any]], nn.Module]] = {
    "conv": _conv,
    "linear": lambda o: nn.Linear(o["inputs"], o["outputs"], bias=bool(o["bias"])),
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "max_pool": _max_pool,
    "average_pool": _average_pool,
    "adaptive_average_pool": lambda o: nn.AdaptiveAvgPool2d(tuple(o["size"])),
    "relu": lambda o: nn.ReLU(),
    "leaky_relu": lambda o: nn.LeakyReLU(o["slope"]),
    "elu": lambda o: nn.ELU(o["alpha"]),
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
    "sqrt": (torch.sqrt, 1),
    "neg": (torch.neg, 1),
    "abs": (torch.abs, 1),
    "reciprocal": (torch.reciprocal, 1),
    "reshape": (reshape, 1),
    "permute": (permute, 1),
    "concat": (concat, None),
    "pad": (pad, 1),
    "mean": (mean, 1),
    "sum": (total, 1),
    "max": (largest, 1),
    "slice": (cut, 1),
    "clamp": (clamp, 1),
    "affine_clamp": (affine_clamp, 1),
}

#: The operations without an input: a tensor of the state dict, or a number.
PARAMETER, BUFFER, NUMBER = "parameter", "buffer", "number"
