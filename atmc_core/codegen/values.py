"""Where a network's intermediate results lie in memory."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

import torch
from torch import Tensor

_NUMBERS = count()


@dataclass(eq=False)
class Buffer:
    """A piece of memory that one kernel writes.

    Attributes:
        size: the number of floats.
        number: distinguishes buffers; they are numbered in the order in which they were made.
    """

    size: int
    number: int = field(default_factory=lambda: next(_NUMBERS))


@dataclass(frozen=True)
class Value:
    """A tensor in a buffer, or a part of one.

    Attributes:
        buffer: the memory.
        view: shape, strides and offset of the tensor in it; on PyTorch's device ``meta``.
    """

    buffer: Buffer
    view: Tensor

    @classmethod
    def new(cls, shape: Sequence[int]) -> "Value":
        """A contiguous tensor in a buffer of its own."""
        view = torch.empty(tuple(shape), device="meta")
        return cls(Buffer(view.numel()), view)

    @property
    def offset(self) -> int:
        """The place of the first entry in the buffer."""
        return int(self.view.storage_offset())

    def seen(self, view: Tensor) -> "Value":
        """The same memory, seen in another way."""
        return Value(self.buffer, view)

    @property
    def whole(self) -> bool:
        """Whether the tensor is the whole buffer in its usual order."""
        return self.view.is_contiguous() and self.view.numel() == self.buffer.size

    def positions(self) -> Tensor:
        """The place of each entry in the buffer, int64 of the tensor's shape."""
        places = torch.arange(self.buffer.size)
        return places.as_strided(self.view.shape, self.view.stride(), self.view.storage_offset())


def place(spans: dict[Buffer, tuple[int, int]]) -> tuple[dict[Buffer, int], int]:
    """Give each buffer a place in one piece of memory; those that live together do not overlap.

    Args:
        spans: the first and the last step in which each buffer is used.

    Returns:
        The offset of each buffer, and the size of the memory, in floats. Offsets are multiples of
        16 floats, a cache line.
    """
    offsets: dict[Buffer, int] = {}
    for buffer in sorted(spans, key=lambda each: (-each.size, each.number)):
        first, last = spans[buffer]
        taken = sorted(
            (offset, offset + other.size)
            for other, offset in offsets.items()
            if spans[other][0] <= last and first <= spans[other][1]
        )
        offset = 0
        for begin, end in taken:
            if offset + buffer.size <= begin:
                break
            offset = max(offset, -(-end // 16) * 16)
        offsets[buffer] = offset
    return offsets, max((offsets[each] + each.size for each in offsets), default=0)
