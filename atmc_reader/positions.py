"""Where the non-zeros of a factor are: bits, each predicted by what is known around it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from atmc_reader.coder import (
    CLASS_WIDTH,
    CLASSES,
    UNIT,
    Coder,
    Integers,
    code_sorted,
    logarithm,
)

_T = TypeVar("_T", bound=np.generic)

#: The entries of a matrix are coded in this many passes.
PASSES = 16
# The zeroth class's odds are 2^-13.
_LEAST = -13 * UNIT
# What a row or a column adds to the logarithm of the odds is at most this, so that int16 holds it.
_MOST = 24 * UNIT
# All classes, and that of what lies beyond the last column.
_CLASSES = np.arange(CLASSES + 1, dtype=np.uint8)
#: Weights are in units of 1/32; that of a neighbour, and the constant, in units of 8/256 bit.
WEIGHT_SHIFT, STEP = 5, 8


class Weights(NamedTuple):
    """How much each context counts, signed bytes; zeros ignore it.

    Attributes:
        constant: is added to all.
        row, column: the entry's row and column.
        channel, cell: the columns of its channel, and those of its place in the kernel.
        neighbour: each non-zero beside, above or below it in the kernel.
        kernel: the logarithm of one more than there are non-zeros in its kernel.
    """

    constant: int = 0
    row: int = 0
    column: int = 0
    channel: int = 0
    cell: int = 0
    neighbour: int = 0
    kernel: int = 0


NO_WEIGHTS = Weights()


class Features(NamedTuple):
    """What is known before a pass.

    Attributes:
        row, column, channel, cell: the logarithm of how many times more non-zeros have been found
            in each than in the whole matrix.
    """

    row: Integers
    column: Integers
    channel: Integers
    cell: Integers


@dataclass
class Matrix:
    """A matrix of bits that is coded in passes.

    Pass t has the entries whose row and column add up to t modulo 16, so that each row and each
    column is known in part before most of its entries are coded.

    Attributes:
        rows, columns: its size.
        kernel: height and width of a kernel; the columns are channels times kernel cells, a
            channel's cells side by side.
        ones: how many bits are set; neither none nor all.
        found: the set bits of the passes so far: rows and columns, of each pass.
        has_neighbours: whether anybody asks for ``neighbours``.
        by_kernel: what ``kernels`` has for a kernel of which so many entries are known to be set,
            ``[area + 1]``; None if nobody asks for ``kernels``.
    """

    rows: int
    columns: int
    kernel: tuple[int, int]
    ones: int
    found: list[tuple[Integers, Integers]] = field(default_factory=list)
    has_neighbours: bool = True
    by_kernel: NDArray[np.int16] | None = None

    def __post_init__(self) -> None:
        self._ones_in_row = np.zeros(self.rows, np.int64)
        self._ones_in_column = np.zeros(self.columns, np.int64)
        self._seen_in_row = np.zeros(self.rows, np.int64)
        self._seen_in_column = np.zeros(self.columns, np.int64)
        self.width = -(-self.columns // PASSES)
        self._row, self._column = np.arange(self.rows), np.arange(self.columns)
        self.area = self.kernel[0] * self.kernel[1]
        self.channels = self.columns // self.area
        self.has_neighbours &= self.area > 1
        # Where the entries of a column begin in what is folded, without their row.
        self._plane = self.rows * self.width
        self._start_of = self._column % PASSES * self._plane + self._column // PASSES
        if self.has_neighbours:
            # How many of an entry's neighbours are known to be set, folded; the last plane takes
            # the neighbours that lie beyond a kernel's edge.
            self.neighbours = np.zeros((PASSES + 1, self.rows, self.width), np.int8)
            self._beside = {step: self._beyond(step, there) for step, there in self._neighbours()}
        if self.by_kernel is not None:
            # There are whole sixteens of rows, as ``of_kernels`` needs them.
            kernels = -(-self.rows // PASSES) * PASSES, self.channels
            self._in_kernel = np.zeros(self.rows * self.channels, np.int64)
            self.kernels = np.full(kernels, self.by_kernel[0])
            # The channel of each place of a phase in a row, ``[16, width]``.
            columns = np.arange(self.width * PASSES).reshape(-1, PASSES).T
            self._channel_of = np.minimum(columns // self.area, self.channels - 1)

    def _neighbours(self) -> Iterator[tuple[int, NDArray[np.bool_]]]:
        """Yield how many columns further neighbours are, and which columns have such a one."""
        height, width = self.kernel
        y, x = np.divmod(self._column % self.area, width)
        if width > 1:
            yield from ((1, x < width - 1), (-1, x > 0))
        yield from ((width, y < height - 1), (-width, y > 0))

    def _beyond(self, step: int, there: NDArray[np.bool_]) -> Integers:
        """Where the neighbours of columns begin in what is folded, without their row."""
        found = np.full(self.columns, PASSES * self._plane)
        found[there] = self._start_of[self._column[there] + step]
        return found

    def phase(self, number: int) -> Integers:
        """The first column of each row in a pass; the others follow in steps of 16."""
        return (number - self._row) % PASSES

    def features(self) -> Features:
        """The features of the next pass."""
        ones = self._per_context(self._ones_in_row, self._ones_in_column)
        seen = self._per_context(self._seen_in_row, self._seen_in_column)
        # As if two more ones had been seen, and as many more entries as have two ones elsewhere.
        zeros = self.rows * self.columns - self.ones
        excess = logarithm((ones + 2) * zeros)
        excess -= logarithm((seen - ones) * self.ones + 2 * zeros)
        first, last = self.rows + self.columns, -self.area
        return Features(
            excess[: self.rows], excess[self.rows : first], excess[first:last], excess[last:]
        )

    def _per_context(self, in_row: Integers, in_column: Integers) -> Integers:
        """Numbers for all rows, columns, channels and cells, one after the other."""
        kernels = in_column.reshape(-1, self.area)
        return np.concatenate([in_row, in_column, kernels.sum(1), kernels.sum(0)])

    @cached_property
    def base(self) -> int:
        """The logarithm of the odds of the whole matrix."""
        zeros = self.rows * self.columns - self.ones
        first, second = logarithm(np.array([self.ones, zeros]))
        return int(first - second)

    def folded(self, rows: Integers, columns: Integers) -> NDArray[np.bool_]:
        """Bits that are set at these places, ``[16, rows, width]``.

        The first index is the column modulo 16, so that a pass has whole runs of memory.
        """
        marks = np.zeros((PASSES, self.rows, self.width), np.bool_)
        marks.reshape(-1)[self._start_of[columns] + rows * self.width] = True
        return marks

    def of_pass(self, folded: NDArray[_T], number: int) -> NDArray[_T]:
        """The entries of a pass, ``[rows, width]``, of what is folded."""
        return folded[self.phase(number), self._row]

    def of_kernels(self, values: NDArray[_T], number: int) -> NDArray[_T]:
        """For each entry of a pass its kernel's number of ``values``, which are like ``kernels``.

        The pattern of a pass comes again after sixteen rows, so that one list of places does for
        all of them.
        """
        row = np.arange(PASSES)
        places = row[:, None] * self.channels + self._channel_of[(number - row) % PASSES]
        sixteens = values.reshape(-1, PASSES * self.channels).take(places.reshape(-1), axis=1)
        return sixteens.reshape(-1, self.width)[: self.rows]

    def positions(self) -> Integers:
        """The positions of the set bits in the flattened matrix, in the order of the passes."""
        return np.concatenate([rows * self.columns + columns for rows, columns in self.found])

    def learn(self, number: int, rows: Integers, columns: Integers) -> None:
        """Take in which bits of a pass are set."""
        self.found.append((rows, columns))
        self._ones_in_row += np.bincount(rows, minlength=self.rows)
        self._ones_in_column += np.bincount(columns, minlength=self.columns)
        self._seen_in_row += (self.columns - 1 - self.phase(number)) // PASSES + 1
        first_row = (number - self._column) % PASSES
        self._seen_in_column += (self.rows - 1 - first_row) // PASSES + 1
        if self.by_kernel is not None:
            kernels = rows * self.channels + columns // self.area
            np.add.at(self._in_kernel, kernels, 1)
            self.kernels.reshape(-1)[kernels] = self.by_kernel[self._in_kernel[kernels]]
        if not self.has_neighbours:
            return
        flat, start = self.neighbours.reshape(-1), rows * self.width
        for step, beside in self._beside.items():
            # Whoever has been coded does not ask any more.
            if (number + step) % PASSES > number:
                # Within one direction no entry is met twice.
                flat[start + beside[columns]] += 1


def _classes(matrix: Matrix, number: int, weights: Weights) -> NDArray[np.uint8]:
    """The class of each entry of a pass, ``[rows, width]``; beyond the last column ``CLASSES``."""
    features = matrix.features()

    def weighted(weight: int, feature: Integers) -> Integers:
        return (weight * feature) >> WEIGHT_SHIFT

    row = weighted(weights.row, features.row) + matrix.base + STEP * weights.constant
    column = (
        weighted(weights.column, features.column).reshape(-1, matrix.area)
        + weighted(weights.channel, features.channel)[:, None]
        + weighted(weights.cell, features.cell)
    ).reshape(-1)
    padded = np.zeros(matrix.width * PASSES, np.int16)
    padded[: matrix.columns] = _limited(column)
    phase = matrix.phase(number)
    odds = np.ascontiguousarray(padded.reshape(-1, PASSES).T)[phase]
    # A class begins half its width below its odds.
    odds += (_limited(row) + (CLASS_WIDTH // 2 - _LEAST)).astype(np.int16)[:, None]
    if matrix.has_neighbours:
        odds += matrix.of_pass(matrix.neighbours, number) * np.int16(STEP * weights.neighbour)
    if matrix.by_kernel is not None:
        odds += matrix.of_kernels(matrix.kernels, number)
    odds >>= CLASS_WIDTH.bit_length() - 1
    classes = np.clip(odds, 0, CLASSES - 1, out=odds).astype(np.uint8)
    if matrix.columns % PASSES:
        last = phase + (matrix.width - 1) * PASSES
        classes[last >= matrix.columns, -1] = CLASSES
    return classes


def by_kernel(weight: int, area: int) -> NDArray[np.int16]:
    """What the entries known to be set in a kernel add to an entry's odds, ``[area + 1]``."""
    added: Integers = (weight * logarithm(np.arange(1, area + 2))) >> WEIGHT_SHIFT
    return added.astype(np.int16)


def _limited(odds: Integers) -> Integers:
    result: Integers = np.minimum(np.maximum(odds, -_MOST), _MOST)
    return result


def code_matrix(
    coder: Coder, matrix: Matrix, weights: Weights, marks: NDArray[np.bool_] | None
) -> None:
    """Code a matrix of bits; the result is in ``matrix.found``.

    Args:
        coder: writes or reads.
        matrix: the matrix, nothing of which is known yet.
        weights: how much each context counts.
        marks: the bits, as ``matrix.folded`` gives them; None when reading.
    """
    for number in range(PASSES):
        classes = _classes(matrix, number, weights).reshape(-1)
        order = np.argsort(classes, kind="stable")
        starts = np.searchsorted(classes, _CLASSES, sorter=order)
        bits = None if marks is None else matrix.of_pass(marks, number).reshape(-1)[order]
        (where,) = np.nonzero(code_sorted(coder, np.diff(starts), bits))
        entries = order[where]
        rows = entries // matrix.width
        places = entries - rows * matrix.width
        matrix.learn(number, rows, (number - rows) % PASSES + PASSES * places)
