"""Replaces modules that torch's exporter does not know, or spells out, by ones that it writes."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from atmc_core.networks.graph.windows import MeanOfUnevenWindows
from atmc_core.networks.onnx.adaptive import window_means


def writable(classifier: nn.Module) -> nn.Module:
    """A copy in which modules that the exporter does not know are replaced by ones it knows."""
    copied = copy.deepcopy(classifier)
    for name, module in list(copied.named_modules()):
        replacement = _REPLACEMENTS.get(type(module))
        if replacement is not None:
            parent, _, own = name.rpartition(".")
            setattr(copied.get_submodule(parent), own, replacement(module))
    return copied


def has_operators(network: nn.Module) -> bool:
    """Whether a writable network has modules whose calls the exporter must not look into."""
    return any(isinstance(module, _Operator) for module in network.modules())


class _WindowMeans(nn.Module):
    """An adaptive average pool as a product with constant matrices on either side."""

    def __init__(self, pool: nn.AdaptiveAvgPool2d) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, maps: Tensor) -> Tensor:
        # The exporter knows the pool itself if the new sizes divide the maps' sizes.
        with torch.no_grad():
            sizes = self.pool(torch.zeros(1, 1, *map(int, maps.shape[2:]))).shape[2:]
        if all(int(own) % size == 0 for own, size in zip(maps.shape[2:], sizes, strict=True)):
            pooled: Tensor = self.pool(maps)
            return pooled
        rows, columns = (
            window_means(int(own), size) for own, size in zip(maps.shape[2:], sizes, strict=True)
        )
        return torch.from_numpy(rows) @ maps @ torch.from_numpy(columns.T.copy())


class _Operator(nn.Module):
    """A module that is written as one operator of ONNX.

    Args:
        module: the module, which computes the numbers.
        operator: the operator's name.
        attributes: its attributes, each name with the letter of its type behind it, as torch's
            exporter wants them.
    """

    def __init__(self, module: nn.Module, operator: str, attributes: dict[str, Any]) -> None:
        super().__init__()
        self.module, self.operator, self.attributes = module, operator, attributes

    def forward(self, tensor: Tensor) -> Tensor:
        result: Tensor = _Call.apply(tensor, self)  # type: ignore[no-untyped-call]
        return result


class _Call(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, operator: _Operator) -> Tensor:
        result: Tensor = operator.module(tensor)
        return result

    @staticmethod
    def symbolic(g: Any, tensor: Any, operator: _Operator) -> Any:
        return g.op(operator.operator, tensor, **operator.attributes)


def _average_pool(pool: Any) -> nn.Module:
    attributes = {
        "kernel_shape_i": list(pool.kernel),
        "strides_i": list(pool.stride),
        "pads_i": [pool.top, pool.left, pool.bottom, pool.right],
    }
    return _Operator(pool, "AveragePool", attributes)


def _response_norm(norm: Any) -> nn.Module:
    attributes = {
        "size_i": norm.size,
        "alpha_f": norm.alpha,
        "beta_f": norm.beta,
        "bias_f": norm.k,
    }
    return _Operator(norm, "LRN", attributes)


_REPLACEMENTS: Mapping[type[nn.Module], Callable[[Any], nn.Module]] = {
    nn.AdaptiveAvgPool2d: _WindowMeans,
    MeanOfUnevenWindows: _average_pool,
    nn.LocalResponseNorm: _response_norm,
}
