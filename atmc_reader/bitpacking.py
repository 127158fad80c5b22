"""Bit-packed integers, and the Rice code of gaps between positions; vectorised."""

import math

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Integers = NDArray[np.int64]

#: The largest number of low bits in the Rice code.
MAX_RICE_PARAMETER = 24
# For gaps of mean m, the best number of low bits is near log2(0.7 m) (0.7 is about the natural
# logarithm of 2), and these many more and fewer are tried, too.
_MEAN_FACTOR, _TRIED = 0.7, 2


def pack(values: Integers, width: int) -> NDArray[np.bool_]:
    """The bits of integers in [0, 2^width), ``width`` of them each, the least significant first.

    Args:
        values: ``[N]``.
        width: bits for each value, at least 0.

    Returns:
        The bits, ``[N * width]``.
    """
    shifts = np.arange(width)
    return ((values[:, None] >> shifts) & 1).astype(np.bool_).reshape(-1)


def unpack(bits: NDArray[np.bool_], width: int) -> Integers:
    """The inverse of ``pack``, for a ``width`` of at least 1.

    Args:
        bits: ``[N * width]``.
        width: bits for each value.

    Returns:
        The values, ``[N]``.
    """
    weights = np.int64(1) << np.arange(width)
    return bits.reshape(-1, width).astype(np.int64) @ weights


def rice_parameter(gaps: Integers) -> int:
    """The number of low bits with which the Rice code of ``gaps`` is shortest.

    The Rice code of a gap is its low bits, stored plainly, and the rest in unary. The gaps between
    non-zeros at random positions are geometrically distributed, and for these the code is within a
    few per cent of the entropy (Rice, 1979; Gallager and Van Voorhis, 1975).

    Args:
        gaps: non-negative, ``[N]``.
    """
    if not len(gaps):
        return 0
    guess = int(math.log2(max(1.0, _MEAN_FACTOR * float(gaps.mean()))))
    candidates = range(max(0, guess - _TRIED), min(MAX_RICE_PARAMETER, guess + _TRIED) + 1)
    return min(candidates, key=lambda low: len(gaps) * low + int((gaps >> low).sum()))


def unary(quotients: Integers) -> NDArray[np.bool_]:
    """The unary code of non-negative integers ``[N]``: each is that many zeros and then a one."""
    ends = np.cumsum(quotients + 1) - 1
    bits = np.zeros(int(ends[-1]) + 1 if len(ends) else 0, np.bool_)
    bits[ends] = True
    return bits


def from_unary(bits: NDArray[np.bool_]) -> Integers:
    """The inverse of ``unary``; zeros after the last one are padding and ignored."""
    return np.diff(np.flatnonzero(bits), prepend=-1) - 1
