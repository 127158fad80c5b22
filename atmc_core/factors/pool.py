"""Many tensors side by side in one, so that one operation reaches the entries of all.

A network's factors are dozens of tensors; taken one by one, an optimiser step and a projection are
thousands of small operations, which cost more to start than to do, on a GPU above all.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from atmc_core.factors.factors import Factors

_ROLES = "uvc"


class Pool:
    """The ``used`` tensors of all weights' factors, moved into one flat tensor.

    Attributes:
        flat: all entries; the factors hold views of it.
        ends: where each tensor ends in it, int64 ``[T]``, on its device.
    """

    def __init__(self, factors: Mapping[str, Factors]) -> None:
        self.factors = factors
        tensors = used_tensors(factors)
        self.shapes = [tensor.shape for tensor in tensors]
        self.sizes = [tensor.numel() for tensor in tensors]
        self.flat = tensors[0].new_empty(sum(self.sizes))
        self.ends = torch.tensor(self.sizes, device=self.flat.device).cumsum(0)
        views = iter(self.views(self.flat))
        for own in factors.values():
            for role in own.used:
                view = next(views)
                setattr(own, _ROLES[role], view.copy_(own.tensors[role]))

    def views(self, flat: Tensor) -> list[Tensor]:
        """The part of a tensor like ``flat`` that belongs to each of the pooled ones."""
        parts = torch.split(flat, self.sizes)
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def by_weight(self, flat: Tensor) -> Iterator[tuple[str, Factors, list[Tensor]]]:
        """The same views, weight by weight."""
        views = iter(self.views(flat))
        for name, own in self.factors.items():
            yield name, own, [next(views) for _ in own.used]


def used_tensors(factors: Mapping[str, Factors]) -> list[Tensor]:
    """Those tensors of all weights that may hold anything."""
    return [own.tensors[role] for own in factors.values() for role in own.used]
