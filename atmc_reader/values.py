"""What the non-zeros are, and the small tensors: codebooks, floats, numbers on a grid."""

from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atmc_reader.coder import Coder, Integers, code_integers, code_plain, code_symbols, rarely

Floats = NDArray[np.float32]

# A grid's numbers are -127 to 127 times 2^exponent; exponents are stored from the least of float32.
GRID_MOST = 127
_GRID_BITS, _EXPONENT_BITS, LEAST_EXPONENT = 7, 9, -149
# About what a value costs that has not come before.
_NEW_BITS = 8


class Kind(IntEnum):
    """How floats are stored; each number is exactly what it was."""

    FLOAT32 = 0
    FLOAT16 = 1
    #: Integers of 8 bits times a power of two, which is each tensor's own.
    GRID = 2

    @property
    def bits(self) -> int:
        """The bits of a float."""
        return 32 if self is Kind.FLOAT32 else 16


# Numbers have keys of so many bits, which are in the same order.
_KEY_BITS = {Kind.FLOAT32: 32, Kind.FLOAT16: 16, Kind.GRID: 8}
# A tensor of so many different numbers is worth the bits that say which tensors rise.
_MANY = 16
# A float with its sign last is coded in planes of so many bits: its exponent, and the rest.
_PLANES = {Kind.FLOAT32: (8, 8, 8, 8), Kind.FLOAT16: (5, 3, 8)}


def code_floats(
    coder: Coder, kind: Kind, sizes: Sequence[int], values: Floats | None, rising: bool = False
) -> Floats:
    """Code the floats of some tensors together.

    Args:
        coder: writes or reads.
        kind: how; the numbers must be of that kind.
        sizes: how many each tensor has.
        values: all of them, ``[sum of sizes]``; None when reading.
        rising: whether tensors whose numbers never fall are coded by the steps between them.
    """
    exponents = np.zeros(len(sizes), np.int64)
    if kind is Kind.GRID:
        exponents = _code_exponents(coder, sizes, values)
    keys = None if values is None else _keys_of(kind, values, sizes)
    steps = np.zeros(len(sizes), np.bool_)
    if rising:
        marks = None if keys is None else [int(_is_rising(own)) for own in _split(keys, sizes)]
        steps = code_plain(coder, 1, len(sizes), None if marks is None else np.array(marks)) > 0
    in_steps = np.repeat(steps, sizes)
    result = np.zeros(sum(sizes), np.int64)
    known = None if keys is None else keys[in_steps]
    stepped = [size for size, own in zip(sizes, steps, strict=True) if own]
    result[in_steps] = _code_rising(coder, _KEY_BITS[kind], stepped, known)
    known = None if keys is None else keys[~in_steps]
    code = _code_grid if kind is Kind.GRID else _code_patterns
    result[~in_steps] = code(coder, kind, int((~in_steps).sum()), known)
    return _from_keys(kind, result, np.repeat(exponents, sizes))


def _code_patterns(coder: Coder, kind: Kind, count: int, keys: Integers | None) -> Integers:
    """Code floats' keys in planes of bits, the signs with the last."""
    bits = kind.bits
    patterns = None if keys is None else _rotated(_unordered(keys, bits), bits, 1)
    result, left = np.zeros(count, np.int64), bits
    for width in _PLANES[kind]:
        left -= width
        plane = None if patterns is None else (patterns >> left) & ((1 << width) - 1)
        result |= _code_plane(coder, width, count, plane) << left
    return _ordered(_rotated(result, bits, bits - 1), bits)


def _code_plane(coder: Coder, width: int, count: int, plane: Integers | None) -> Integers:
    """Code integers of ``width`` bits; the first bit says whether by how often each has come."""
    if _code_bit(coder, None if plane is None else _is_skewed(plane, width)):
        return code_symbols(coder, 1 << width, rarely, count, plane)
    return code_plain(coder, width, count, plane)


def _code_bit(coder: Coder, bit: bool | None) -> bool:
    """Code one bit."""
    return bool(code_plain(coder, 1, 1, None if bit is None else np.array([int(bit)]))[0])


def _is_skewed(plane: Integers, width: int) -> bool:
    """Whether integers are likely to be shorter when coded by how often each has come."""
    counts = np.bincount(plane)
    counts = counts[counts > 0]
    entropy = float(-(counts * np.log2(counts / max(len(plane), 1))).sum())
    return bool(entropy + len(counts) * _NEW_BITS < width * len(plane))


def _rotated(patterns: Integers, bits: int, by: int) -> Integers:
    """Bit patterns turned left: by one the sign comes last, and the first byte is the exponent."""
    return ((patterns << by) | (patterns >> (bits - by))) & ((1 << bits) - 1)


def _to_patterns(kind: Kind, values: Floats) -> Integers:
    if kind is Kind.FLOAT32:
        return values.view(np.uint32).astype(np.int64)
    with np.errstate(over="ignore"):
        return values.astype(np.float16).view(np.uint16).astype(np.int64)


def _from_patterns(kind: Kind, patterns: Integers) -> Floats:
    if kind is Kind.FLOAT32:
        return patterns.astype(np.uint32).view(np.float32)
    return patterns.astype(np.uint16).view(np.float16).astype(np.float32)


def _code_exponents(coder: Coder, sizes: Sequence[int], values: Floats | None) -> Integers:
    """Code the exponent of each tensor's grid."""
    exponents = None if values is None else _exponents(values, sizes) - LEAST_EXPONENT
    return code_plain(coder, _EXPONENT_BITS, len(sizes), exponents) + LEAST_EXPONENT


def _exponents(values: Floats, sizes: Sequence[int]) -> Integers:
    return np.array([grid_exponent(part) for part in _split(values, sizes)], np.int64)


def _code_grid(coder: Coder, _: Kind, count: int, keys: Integers | None) -> Integers:
    """Code grids' keys: magnitudes and then signs, or how often each number comes."""
    if _code_bit(coder, None if keys is None else _is_skewed(keys, _GRID_BITS)):
        return code_symbols(coder, 2 * GRID_MOST + 1, rarely, count, keys)
    whole = None if keys is None else keys - GRID_MOST
    size = code_integers(coder, _GRID_BITS, count, None if whole is None else np.abs(whole))
    (signed,) = np.nonzero(size)
    negative = None if whole is None else (whole[signed] < 0).astype(np.int64)
    size[signed] *= 1 - 2 * code_plain(coder, 1, len(signed), negative)
    return size + GRID_MOST


def _keys_of(kind: Kind, values: Floats, sizes: Sequence[int]) -> Integers:
    """Integers in the order of numbers of a kind: what a rising tensor's steps are between."""
    if kind is not Kind.GRID:
        return _ordered(_to_patterns(kind, values), kind.bits)
    scales = np.repeat(_exponents(values, sizes), sizes).astype(np.int32)
    return np.ldexp(values.astype(np.float64), -scales).astype(np.int64) + GRID_MOST


def _from_keys(kind: Kind, keys: Integers, exponents: Integers) -> Floats:
    """The numbers that have these keys; exponents are those of their grids."""
    if kind is not Kind.GRID:
        return _from_patterns(kind, _unordered(keys, kind.bits))
    found = np.ldexp((keys - GRID_MOST).astype(np.float64), exponents.astype(np.int32))
    if np.abs(found).max(initial=0) > np.finfo(np.float32).max:
        raise ValueError("a number is beyond float32")
    return found.astype(np.float32)


def _is_rising(keys: Integers) -> bool:
    return bool(np.all(keys[1:] >= keys[:-1]))


def rises(kind: Kind, values: Floats, sizes: Sequence[int]) -> bool:
    """Whether it pays to code rising tensors by their steps: one has many different numbers."""
    parts = _split(_keys_of(kind, values, sizes), sizes)
    return any(_is_rising(own) and len(np.unique(own)) >= _MANY for own in parts)


def grid_exponent(values: Floats) -> int | None:
    """The exponent of the grid that holds these numbers exactly; None if none does."""
    if not np.isfinite(values).all() or np.any((values == 0) & np.signbit(values)):
        return None
    mantissa, exponents = np.frexp(values[values != 0].astype(np.float64))
    if not len(mantissa):
        return 0
    # With a mantissa below 1, a number is below 2^exponent; 7 bits below the largest must do.
    exponent = max(int(exponents.max()) - _GRID_BITS, LEAST_EXPONENT)
    whole = np.ldexp(values.astype(np.float64), -exponent)
    return exponent if np.array_equal(whole, np.rint(whole)) else None


def kind_of(values: Floats, sizes: Sequence[int], grid: bool = True) -> Kind:
    """The smallest kind that holds the numbers of some tensors exactly.

    Args:
        values: all of them.
        sizes: how many each tensor has.
        grid: whether ``GRID`` may be chosen.
    """
    if grid and all(grid_exponent(part) is not None for part in _split(values, sizes)):
        return Kind.GRID
    rounded = _from_patterns(Kind.FLOAT16, _to_patterns(Kind.FLOAT16, values))
    same = np.array_equal(rounded.view(np.uint32), values.view(np.uint32))
    return Kind.FLOAT16 if same else Kind.FLOAT32


def code_codebooks(coder: Coder, kind: Kind, sizes: Sequence[int], values: Floats | None) -> Floats:
    """Code codebooks, the values of each in rising order: the first of each, and the steps.

    Args:
        coder: writes or reads.
        kind: ``FLOAT32`` or ``FLOAT16``.
        sizes: the sizes of the codebooks, at least 1.
        values: all of them one after the other, ``[sum of sizes]``; None when reading.
    """
    keys = None if values is None else _ordered(_to_patterns(kind, values), kind.bits)
    return _from_patterns(kind, _unordered(_code_rising(coder, kind.bits, sizes, keys), kind.bits))


def _code_rising(coder: Coder, bits: int, sizes: Sequence[int], keys: Integers | None) -> Integers:
    """Code rising sequences of integers below 2^bits: the first of each, and then all steps."""
    first = np.zeros(sum(sizes), np.bool_)
    starts = np.cumsum([0, *sizes])[:-1]
    first[starts[np.array(sizes, np.int64) > 0]] = True
    steps = None if keys is None else np.diff(keys, prepend=0)
    result = np.zeros(sum(sizes), np.int64)
    known = None if keys is None else keys[first]
    result[first] = code_plain(coder, bits, int(first.sum()), known)
    known = None if steps is None else steps[~first]
    result[~first] = code_integers(coder, bits, int((~first).sum()), known)
    parts = [np.cumsum(part) for part in _split(result, sizes)]
    return np.concatenate([np.zeros(0, np.int64), *parts]) & ((1 << bits) - 1)


def _ordered(patterns: Integers, bits: int) -> Integers:
    """Integers in the order of the floats that have these bit patterns."""
    sign = 1 << (bits - 1)
    return np.where(patterns & sign, ~patterns & (2 * sign - 1), patterns | sign)


def _unordered(keys: Integers, bits: int) -> Integers:
    sign = 1 << (bits - 1)
    return np.where(keys & sign, keys ^ sign, ~keys & (2 * sign - 1))


def _split(values: NDArray[Any], sizes: Sequence[int]) -> list[NDArray[Any]]:
    return np.split(values, np.cumsum(sizes)[:-1]) if len(sizes) else []
