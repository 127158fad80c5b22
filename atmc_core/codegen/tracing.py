"""Reads a network as a list of PyTorch's basic operations on one image.

The network is run once and its operations are recorded as they come (``make_fx``), whichever
module, function or ONNX graph calls them. Compound operations are spelt out by simpler ones.
"""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._decomp import core_aten_decompositions
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx

from atmc_core.codegen.refusal import NotCovered

aten = torch.ops.aten


def trace(network: nn.Module, shape: Sequence[int]) -> fx.GraphModule:
    """Record the operations of a network on one image.

    Args:
        network: maps images ``[N, C, H, W]`` to logits ``[N, classes]``; it is copied.
        shape: that of an image, ``(C, H, W)``.

    Returns:
        A graph of operations of ``torch.ops.aten`` without in-place ones.

    Raises:
        NotCovered: if the network cannot be traced.
    """
    own = copy.deepcopy(network).cpu().float().eval().requires_grad_(False)
    image = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            spelt_out = make_fx(functionalize(own), decomposition_table=_table())(image)
            # What was spelt out may write in place, so it is made functional once more.
            traced = make_fx(functionalize(spelt_out))(image)
    except Exception as error:  # whatever a network of somebody's own may raise
        raise NotCovered(f"the network cannot be traced: {error}") from error
    traced.graph.eliminate_dead_code()
    return traced


def _batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    *settings: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    # In double precision, because the factor and the summand are constants of the file.
    factor = (variance.double() + settings[-1]).rsqrt()
    factor = factor if weight is None else factor * weight
    summand = -mean * factor if bias is None else bias - mean * factor
    sides = (1, -1) + (1,) * (x.ndim - 2)
    normed = x * factor.float().view(sides) + summand.float().view(sides)
    return normed, x.new_empty(0), x.new_empty(0)


def _moments(x: Tensor, dims: Sequence[int], eps: float) -> Tensor:
    """The entries less their mean, over their deviation."""
    centred = x - x.mean(tuple(dims), keepdim=True)
    return centred * ((centred * centred).mean(tuple(dims), keepdim=True) + eps).rsqrt()


def _layer_norm(
    x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    normed = _moments(x, range(x.ndim - len(shape), x.ndim), eps)
    normed = normed if weight is None else normed * weight
    return normed if bias is None else normed + bias, x.new_empty(0), x.new_empty(0)


def _group_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    n: int,
    channels: int,
    size: int,
    groups: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    normed = _moments(x.reshape(n, groups, -1), [2], eps).reshape(x.shape)
    sides = (1, -1) + (1,) * (x.ndim - 2)
    normed = normed if weight is None else normed * weight.view(sides)
    normed = normed if bias is None else normed + bias.view(sides)
    return normed, x.new_empty(0), x.new_empty(0)


def _softmax(x: Tensor, dim: int, half: bool) -> Tensor:
    powers = (x - x.amax(dim, keepdim=True)).exp()
    return powers / powers.sum(dim, keepdim=True)


def _norm(
    x: Tensor, order: float = 2, dims: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    over = tuple(range(x.ndim)) if dims is None else tuple(dims)
    if order != 2:
        raise NotCovered(f"a norm of order {order}")
    return (x * x).sum(over, keepdim=keepdim).sqrt()


def _elu(x: Tensor, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Tensor:
    return torch.where(x > 0, x * scale, torch.expm1(x * input_scale) * (alpha * scale))


def _gelu(x: Tensor, approximate: str = "none") -> Tensor:
    if approximate == "none":
        return x * 0.5 * (1 + torch.erf(x * math.sqrt(0.5)))
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
    return 0.5 * x * (1 + torch.tanh(inner))


def _average_3d(
    x: Tensor,
    window: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    *others: Any,
) -> Tensor:
    """The mean over neighbouring channels, by which a local response norm is written."""
    if window[1:] != [1, 1] or any(each != 1 for each in stride) or any(padding):
        raise NotCovered("an average pool over three axes")
    count = x.shape[2] - window[0] + 1
    total = x[:, :, :count]
    for first in range(1, window[0]):
        total = total + x[:, :, first : first + count]
    return total / window[0]


def _table() -> dict[Any, Callable[..., Any]]:
    """Compound operations, each with a function that spells it out."""
    return {
        **core_aten_decompositions(),
        aten.native_batch_norm.default: _batch_norm,
        aten._native_batch_norm_legit_no_training.default: _batch_norm,
        aten.native_layer_norm.default: _layer_norm,
        aten.native_group_norm.default: _group_norm,
        aten._softmax.default: _softmax,
        aten.linalg_vector_norm.default: _norm,
        aten.elu.default: _elu,
        aten.gelu.default: _gelu,
        aten.leaky_relu.default: lambda x, slope=0.01: torch.where(x > 0, x, x * slope),
        aten.avg_pool3d.default: _average_3d,
    }
