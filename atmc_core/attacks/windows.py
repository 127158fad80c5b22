"""The windows that a pooling layer reads: where they lie in the maps."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

# The index of a part of maps, along their last axes.
_Part = tuple[EllipsisType | slice, ...]


@dataclass(frozen=True)
class Windows:
    """Windows of one size at regular places; each attribute has one number for each axis.

    Attributes:
        kernel: the windows' size.
        stride: from one window to the next.
        padding: what is added to both sides of the maps.
        dilation: from one value of a window to its next one.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    @classmethod
    def read(
        cls,
        axes: int,
        kernel: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
    ) -> Self:
        """Read the arguments of a pooling function, in which one number stands for all axes."""

        def numbers(value: int | Sequence[int]) -> tuple[int, ...]:
            given = (value,) if isinstance(value, int) else tuple(value)
            return given * axes if len(given) == 1 else given

        # PyTorch takes no stride, be it None or empty, for the windows' size.
        return cls(numbers(kernel), numbers(stride or kernel), numbers(padding), numbers(dilation))

    @property
    def tile(self) -> bool:
        """Whether the windows lie side by side, without gaps, overlaps and padding."""
        return self.kernel == self.stride and not any(self.padding) and set(self.dilation) == {1}

    def parts(self, counts: Sequence[int]) -> Iterator[_Part]:
        """Yield an index of padded maps for each place in a window: that place of all windows.

        Args:
            counts: how many windows there are along each axis.
        """
        for place in itertools.product(*map(range, self.kernel)):
            starts = [each * dilation for each, dilation in zip(place, self.dilation, strict=True)]
            yield (
                ...,
                *(
                    slice(start, start + (count - 1) * stride + 1, stride)
                    for start, count, stride in zip(starts, counts, self.stride, strict=True)
                ),
            )

    def padded(self, maps: Tensor, counts: Sequence[int]) -> Tensor:
        """The maps with minus infinity around them, as far as the windows reach.

        Args:
            maps: ``[..., *sizes]``.
            counts: as in ``parts``.
        """
        widths: list[int] = []
        for axis, size in enumerate(maps.shape[-len(counts) :]):
            reach = (self.kernel[axis] - 1) * self.dilation[axis]
            end = (counts[axis] - 1) * self.stride[axis] + reach + 1
            # F.pad begins with the last axis.
            widths[:0] = [self.padding[axis], max(0, end - size - self.padding[axis])]
        return F.pad(maps, widths, value=-torch.inf) if any(widths) else maps

    def inside(self, padded: Tensor, sizes: Sequence[int]) -> Tensor:
        """The inverse of ``padded``: the part of padded maps that is the maps, of these sizes."""
        ends = [before + size for before, size in zip(self.padding, sizes, strict=True)]
        part: _Part = (..., *map(slice, self.padding, ends))
        return padded[part]


def adaptive(size: int, count: int) -> list[slice]:
    """The windows of an adaptive pool along one axis; their sizes may differ by one.

    Args:
        size: the axis' length.
        count: the number of windows.
    """
    return [slice(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
