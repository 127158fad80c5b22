"""Bit-packed integers and Rice-coded gaps, vectorised."""

import math

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Integers = NDArray[np.int64]

MAX_RICE_PARAMETER = 24


def pack(values: Integers, width: int) -> NDArray[np.bool_]:
    """The bits of non-negative integers below 2^width, least significant first, ``width`` each."""
    shifts = np.arange(width)
    return ((values[:, None] >> shifts) & 1).astype(np.bool_).reshape(-1)


def unpack(bits: NDArray[np.bool_], width: int) -> Integers:
    """The inverse of ``pack``; the number of bits is a multiple of a positive ``width``."""
    weights = np.int64(1) << np.arange(width)
    return bits.reshape(-1, width).astype(np.int64) @ weights


def rice_parameter(gaps: Integers) -> int:
    """The number of low bits to store plainly that makes the Rice code of ``gaps`` shortest.

    The gaps between non-zeros at random places are geometric, for which this code is within a few
    per cent of their entropy (Rice, 1979; Gallager and Van Voorhis, 1975).
    """
    if not len(gaps):
        return 0
    guess = int(math.log2(max(1.0, 0.7 * float(gaps.mean()))))
    candidates = range(max(0, guess - 2), min(MAX_RICE_PARAMETER, guess + 2) + 1)
    return min(candidates, key=lambda low: len(gaps) * low + int((gaps >> low).sum()))


def unary(quotients: Integers) -> NDArray[np.bool_]:
    """Each quotient as that many zeros and a one."""
    ends = np.cumsum(quotients + 1) - 1
    bits = np.zeros(int(ends[-1]) + 1 if len(ends) else 0, np.bool_)
    bits[ends] = True
    return bits


def from_unary(bits: NDArray[np.bool_]) -> Integers:
    """The inverse of ``unary``; bits after the last one are padding."""
    return np.diff(np.flatnonzero(bits), prepend=-1) - 1
