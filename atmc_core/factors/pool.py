"""All factors of a network side by side in one flat tensor, so that one operation reaches them all.

A network's factors are dozens of tensors. Handled one by one, an optimiser step and a projection
would be thousands of small operations, which take longer to start than to run, above all on a GPU.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from atmc_core.factors.factors import Factors

_ROLES = "uvc"


class Pool:
    """The ``used`` tensors of all weights' factors, moved into one flat tensor.

    Attributes:
        factors: the factors, whose used tensors are now views of ``flat``.
        shapes: the shape of each of the T used tensors.
        sizes: the number of entries of each.
        flat: all entries, float32 ``[sum of sizes]``.
        ends: the position in ``flat`` behind each tensor's last entry, int64 ``[T]``, on the same
            device.
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
        """Views of a tensor like ``flat``, one for each pooled tensor, in that tensor's shape."""
        parts = torch.split(flat, self.sizes)
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def by_weight(self, flat: Tensor) -> Iterator[tuple[str, Factors, list[Tensor]]]:
        """Yield the ``views`` of each weight together, with the weight's name and factors."""
        views = iter(self.views(flat))
        for name, own in self.factors.items():
            yield name, own, [next(views) for _ in own.used]


def used_tensors(factors: Mapping[str, Factors]) -> list[Tensor]:
    """The ``used`` tensors of all weights, in order."""
    return [own.tensors[role] for own in factors.values() for role in own.used]
