"""The entropy coder: symbols to bytes and back, by models whose frequencies are integers.

It is constriction's ANS coder (``stack.AnsCoder``): 32-bit words, a 64-bit state, frequencies that
add up to 2^24. What codes a network walks over it once, whether it writes or reads: ``code`` takes
the symbols of a writer and returns those of a reader, so that both sides cannot differ.
"""

from collections.abc import Callable
from functools import cache, lru_cache
from math import isqrt
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Symbols = NDArray[np.int32]
Model = Any  # constriction's classes have no types
#: From how often each symbol has come to the symbols' weights, both ``[alphabet]``.
Weigh = Callable[[Integers], Integers]

#: All frequencies of a model add up to 2 to this power.
PRECISION = 24
_WHOLE = 1 << PRECISION
# The classes of a bit's probability: odds of 2^((class - _EVEN) / 2).
CLASSES, _EVEN = 41, 26
#: Logarithms are in units of 1 / 256 bit; so wide is a class.
UNIT, CLASS_WIDTH = 256, 128
# The roots of two in a class's odds have this many bits behind the point.
_ROOT_BITS = 32
# At most this many bits are coded as one symbol, where all values are equally likely.
_CHUNK = 16


@cache
def _streams() -> Any:
    """constriction's coders and models, imported where a file is read or written.

    So training and evaluation need no coder: the machines that lend a GPU may have none.
    """
    from constriction import stream

    return stream


class Coder(Protocol):
    """Writes or reads symbols."""

    def code(self, model: Model, count: int, symbols: Symbols | None) -> Symbols:
        """Code the next ``count`` symbols.

        Args:
            model: their frequencies.
            count: how many.
            symbols: those of a writer, ``[count]``; a reader passes None.

        Returns:
            The symbols, ``[count]``.
        """

    def part(self, name: str) -> None:
        """Say what the symbols that follow belong to."""


class Writer:
    """Collects symbols and writes them at the end, last first: ANS is a stack."""

    def __init__(self) -> None:
        self._steps: list[tuple[Model, Symbols]] = []

    def code(self, model: Model, count: int, symbols: Symbols | None) -> Symbols:
        assert symbols is not None
        assert len(symbols) == count
        self._steps.append((model, symbols))
        return symbols

    def part(self, name: str) -> None:
        """What is written does not depend on it."""

    def content(self) -> bytes:
        """The words that a ``Reader`` takes, the lowest byte first, without the last zero bytes."""
        coder = _streams().stack.AnsCoder()
        for model, symbols in reversed(self._steps):
            coder.encode_reverse(symbols, model)
        return bytes(coder.get_compressed().astype("<u4").tobytes()).rstrip(b"\0")


class Reader:
    """Reads what a ``Writer`` wrote.

    Args:
        content: its words.

    Attributes:
        bits: how many bits each part has taken so far, by its name.

    Raises:
        ValueError: if these are no such words.
    """

    def __init__(self, content: bytes) -> None:
        words = np.frombuffer(content + bytes(-len(content) % 4), "<u4")
        self._coder = _streams().stack.AnsCoder(words.astype(np.uint32))
        self.bits: dict[str, int] = {}
        self._part, self._left = "", int(self._coder.num_valid_bits())

    def part(self, name: str) -> None:
        left = int(self._coder.num_valid_bits())
        self.bits[self._part] = self.bits.get(self._part, 0) + self._left - left
        self._part, self._left = name, left

    def code(self, model: Model, count: int, symbols: Symbols | None) -> Symbols:
        decoded: Symbols = self._coder.decode(model, count)
        return decoded

    def finish(self) -> None:
        """Check that all has been read.

        Raises:
            ValueError: if something is left.
        """
        self.part("")
        del self.bits[""]
        if not self._coder.is_empty():
            raise ValueError("the coded part holds more than the header announces")


def model_of(frequencies: Integers) -> Model:
    """A model of symbols 0, 1, ... with these frequencies, which are at least 1 and add up to 2^24.

    Of n probabilities, constriction gives each a frequency of 1 and shares the other 2^24 - n out
    in proportion. Numbers that add up to 2^24 - n are taken as they are, so nothing is rounded.
    """
    return _streams().model.Categorical((frequencies - 1).astype(np.float64), perfect=False)


def shares(weights: Integers) -> Integers:
    """Frequencies in proportion to ``weights``; what rounding leaves goes to the first.

    Args:
        weights: ``[n]``, not negative, not all zero, below 2^39 together.
    """
    room = _WHOLE - len(weights)
    frequencies: Integers = 1 + weights * room // weights.sum()
    frequencies[0] += _WHOLE - frequencies.sum()
    return frequencies


@lru_cache
def _probability(class_: int) -> int:
    """The frequency of a one in a class, out of 2^24."""
    odds = isqrt(1 << (class_ - _EVEN + 2 * _ROOT_BITS))
    return (odds << PRECISION) // (odds + (1 << _ROOT_BITS))


@lru_cache
def bit_model(class_: int) -> Model:
    """The model of a bit of a class."""
    one = _probability(class_)
    return model_of(np.array([_WHOLE - one, one]))


@lru_cache
def byte_model(class_: int) -> Model:
    """The model of eight bits of a class together, the first of them the highest."""
    one = _probability(class_)
    room = _WHOLE - 256
    by_ones = [
        1 + one**ones * (_WHOLE - one) ** (8 - ones) * room // _WHOLE**8 for ones in range(9)
    ]
    frequencies = np.array([by_ones[byte.bit_count()] for byte in range(256)])
    frequencies[0] += _WHOLE - frequencies.sum()
    return model_of(frequencies)


@lru_cache
def _uniform(bits: int) -> Model:
    return _streams().model.Uniform(1 << bits)


def class_of(ones: int, zeros: int) -> int:
    """The class of a bit that is set in ``ones`` of so many cases; neither number is zero."""
    first, second = logarithm(np.array([ones, zeros]))
    class_ = int(first - second + _EVEN * CLASS_WIDTH + CLASS_WIDTH // 2) // CLASS_WIDTH
    return min(max(class_, 0), CLASSES - 1)


def code_sorted(
    coder: Coder, counts: Integers, bits: NDArray[np.bool_] | None
) -> NDArray[np.bool_]:
    """Code bits that are sorted by class.

    Eight at a time are one symbol, of the class of the fifth of them. The last ones, which are no
    eight, are symbols of their own, of the class of the last.

    Args:
        coder: writes or reads.
        counts: how many bits there are of each class, ``[CLASSES]``.
        bits: ``[sum of counts]``, and perhaps more; None when reading.
    """
    ends = np.cumsum(counts)
    total = int(ends[-1])
    whole = total // 8 * 8
    packed = None if bits is None else np.packbits(bits[:whole]).astype(np.int32)
    # A byte belongs to a class if its fifth bit lies before the class's end.
    bytes_of = np.minimum((ends + 3) // 8, whole // 8)
    bytes_of[1:] -= bytes_of[:-1].copy()
    parts, start = [np.zeros(0, np.int32)], 0
    for class_ in np.flatnonzero(bytes_of).tolist():
        count = int(bytes_of[class_])
        own = None if packed is None else packed[start : start + count]
        parts.append(coder.code(byte_model(class_), count, own))
        start += count
    result = np.unpackbits(np.concatenate(parts).astype(np.uint8))
    if total > whole:
        last = int(np.flatnonzero(counts)[-1])
        own = None if bits is None else bits[whole:total].astype(np.int32)
        rest = coder.code(bit_model(last), total - whole, own).astype(np.uint8)
        result = np.concatenate([result, rest])
    return result.view(np.bool_)


def code_bits(
    coder: Coder, class_: int, count: int, bits: NDArray[np.bool_] | None
) -> NDArray[np.bool_]:
    """Code ``count`` bits of one class."""
    counts = np.zeros(CLASSES, np.int64)
    counts[class_] = count
    return code_sorted(coder, counts, bits)


def code_plain(coder: Coder, bits: int, count: int, values: Integers | None) -> Integers:
    """Code integers of so many bits, all values equally likely; the high bits come first."""
    result = np.zeros(count, np.int64)
    while bits:
        chunk = min(bits, _CHUNK)
        bits -= chunk
        part = None
        if values is not None:
            part = ((values >> bits) & ((1 << chunk) - 1)).astype(np.int32)
        result |= coder.code(_uniform(chunk), count, part).astype(np.int64) << bits
    return result


def code_symbols(
    coder: Coder, alphabet: int, weigh: Weigh, count: int, symbols: Integers | None
) -> Integers:
    """Code symbols by how often each has come so far.

    The first 16 are coded together, and then as many at a time as are half of those before.

    Args:
        coder: writes or reads.
        alphabet: the symbols are below it.
        weigh: makes the weights of the symbols from how often each has come.
        count: the number of symbols.
        symbols: ``[count]``; None when reading.
    """
    counts, done, parts = np.zeros(alphabet, np.int64), 0, [np.zeros(0, np.int64)]
    if alphabet == 1:
        return np.zeros(count, np.int64)
    while done < count:
        step = min(max(16, done // 2), count - done)
        own = None if symbols is None else symbols[done : done + step].astype(np.int32)
        parts.append(coder.code(model_of(shares(weigh(counts))), step, own).astype(np.int64))
        counts += np.bincount(parts[-1], minlength=alphabet)
        done += step
    return np.concatenate(parts)


def rarely(counts: Integers) -> Integers:
    """Weights where few of the symbols come at all: each as if it had come 1/32 times before."""
    return 32 * counts + 1


def smoothly(counts: Integers) -> Integers:
    """Weights where neighbouring symbols come about as often.

    As if each had come before, four times as many in all as there are symbols, in proportion to how
    often the symbols around it have come: an eighth of the alphabet on either side. In units of
    1/16, rounded down.
    """
    size, total = len(counts), int(counts.sum())
    reach, place = max(size // 8, 1), np.arange(size)
    low, high = np.maximum(place - reach, 0), np.minimum(place + reach + 1, size)
    sums = np.concatenate([[0], np.cumsum(counts)])
    around, width = sums[high] - sums[low], high - low
    # A twentieth is added to the mean around, so that nothing is impossible.
    before = 64 * size * (20 * around + width) // (width * (20 * total + size))
    weights: Integers = 16 * counts + before
    return weights


def code_integers(coder: Coder, bits: int, count: int, values: Integers | None) -> Integers:
    """Code non-negative integers: the number of bits as a symbol, then those behind the first.

    Args:
        coder: writes or reads.
        bits: the most that an integer has.
        count: the number of integers.
        values: ``[count]``; None when reading.
    """
    # frexp's exponent is the number of bits of an integer below 2^53.
    lengths = None if values is None else np.frexp(values.astype(np.float64))[1].astype(np.int64)
    lengths = code_symbols(coder, bits + 1, rarely, count, lengths)
    result = np.where(lengths > 0, 1 << np.maximum(lengths - 1, 0), 0)
    for length in range(2, bits + 1):
        (where,) = np.nonzero(lengths == length)
        if len(where):
            own = None if values is None else values[where] & ((1 << (length - 1)) - 1)
            result[where] |= code_plain(coder, length - 1, len(where), own)
    return result


@lru_cache
def _mantissas() -> Integers:
    """256 log2(1 + i / 256) for i below 256, rounded down."""
    return np.array([((UNIT + i) ** UNIT).bit_length() - 1 - 8 * UNIT for i in range(UNIT)])


def logarithm(values: Integers) -> Integers:
    """The binary logarithm of positive integers in units of 1 / 256, from their first nine bits.

    Integers above 2^53 are first rounded to float64, so all machines agree.
    """
    patterns = values.astype(np.float64).view(np.int64)
    exponent, first = (patterns >> 52) - 1023, (patterns >> 44) & 255
    result: Integers = exponent * UNIT + _mantissas()[first]
    return result
