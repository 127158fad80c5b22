"""The coded part of a file: all factors of a network, their codebooks and the other tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atmc_reader.coder import Coder, Integers, class_of, code_bits, code_symbols, smoothly
from atmc_reader.layout import CODEBOOK_BITS, FactorLayout, Header, Weight, groups_of
from atmc_reader.positions import Matrix, by_kernel, code_matrix
from atmc_reader.values import Floats, Kind, code_codebooks, code_floats

U, V, C = range(3)
_NONE = np.zeros(0, np.float32)

Mask = NDArray[np.bool_]


class Sparse(NamedTuple):
    """A factor's non-zeros.

    Attributes:
        shape: the factor's, ``[groups, rows, columns]``.
        positions: in the flattened factor, in rising order, int64 ``[n]``.
        values: float32 ``[n]``.
    """

    shape: tuple[int, int, int]
    positions: Integers
    values: Floats

    def dense(self) -> Floats:
        """The whole factor, float32 of ``shape``."""
        flat = np.zeros(int(np.prod(self.shape)), np.float32)
        flat[self.positions] = self.values
        return flat.reshape(self.shape)


@dataclass(frozen=True)
class Contents:
    """What the coded part holds.

    Attributes:
        factors: U, V and C of each weight, in the header's order.
        others: the other tensors, float32, in the header's order.
    """

    factors: tuple[Sparse, ...]
    others: tuple[Floats, ...]


class Frame(NamedTuple):
    """Which entries of a factor are coded, and in what arrangement.

    Attributes:
        rows: the row of the factor (those of all groups one below the other) that each coded row
            is.
        columns: likewise the column of each coded column.
        kernel: height and width of the kernel cells that lie side by side in the coded columns.
    """

    rows: Integers
    columns: Integers
    kernel: tuple[int, int]

    def without(self, rows: Mask | None, channels: Mask | None) -> "Frame":
        """The frame of the rows and channels that are marked."""
        area = self.kernel[0] * self.kernel[1]
        kept = self.columns if channels is None else self.columns[np.repeat(channels, area)]
        return Frame(self.rows if rows is None else self.rows[rows], kept, self.kernel)


def frame_of(weight: Weight, role: int, side: int, basis: Mask) -> Frame:
    """The frame of a factor.

    Args:
        weight: the factor's weight.
        role: ``U``, ``V`` or ``C``.
        side: of the square maps that a linear layer reads.
        basis: which indices of the inner dimension are coded, ``[inner]``; of C all are.

    Raises:
        ValueError: if the columns are not so many such maps.
    """
    groups, rows, columns = weight.factor_shapes[role]
    (used,) = np.nonzero(basis)
    coded_rows = np.arange(groups * rows)
    if role == V:
        coded_rows = (np.arange(groups)[:, None] * rows + used).reshape(-1)
    if role == U and not (basis.all() and not weight.wide):
        return Frame(coded_rows, used, (1, 1))
    kernel = weight.kernel if len(weight.shape) == 4 else (side, side)
    area = kernel[0] * kernel[1]
    if columns % area:
        raise ValueError(f"{weight.name}: {columns} columns are no maps of {area} cells")
    # A convolution's columns are cells of channels; those of a linear layer channels of cells.
    if len(weight.shape) == 4:
        order = np.arange(columns).reshape(area, -1).T.reshape(-1)
    else:
        order = np.arange(columns)
    return Frame(coded_rows, order, kernel)


def code_mask(coder: Coder, length: int, count: int, mask: Mask | None) -> Mask:
    """Code ``length`` bits of which ``count`` are set, all places equally likely.

    Raises:
        ValueError: if there are more than ``length`` to set.
    """
    if not 0 <= count <= length:
        raise ValueError(f"{count} marked of {length}")
    if count in (0, length):
        return np.full(length, count > 0)
    return code_bits(coder, class_of(count, length - count), length, mask)


def code_positions(
    coder: Coder, frame: Frame, layout: FactorLayout, columns: int, positions: Integers | None
) -> Integers:
    """Code the positions of a factor's non-zeros.

    Args:
        coder: writes or reads.
        frame: the arrangement, before empty rows and channels are left out.
        layout: what the header says of the factor.
        columns: the factor's.
        positions: in the flattened factor, in rising order; None when reading.

    Returns:
        The positions, in rising order.

    Raises:
        ValueError: if what is read contradicts the layout.
    """
    area = frame.kernel[0] * frame.kernel[1]
    live_rows = live_channels = None
    rows, places = (None, None) if positions is None else np.divmod(positions, columns)
    if layout.rows is not None:
        mask = None if rows is None else np.isin(frame.rows, rows)
        live_rows = code_mask(coder, len(frame.rows), layout.rows, mask)
    if layout.channels is not None:
        mask = None
        if places is not None:
            mask = np.asarray(np.isin(frame.columns, places).reshape(-1, area).any(1))
        live_channels = code_mask(coder, len(frame.columns) // area, layout.channels, mask)
    frame = frame.without(live_rows, live_channels)
    found = _coded(coder, frame, layout, rows, places)
    width = max(len(frame.columns), 1)
    coded_rows = found // width
    coded_columns = found - coded_rows * width
    return np.sort(frame.rows[coded_rows] * columns + frame.columns[coded_columns])


def _coded(
    coder: Coder,
    frame: Frame,
    layout: FactorLayout,
    rows: Integers | None,
    places: Integers | None,
) -> Integers:
    """Code the positions in a frame that has no more rows and channels to leave out."""
    height, width = len(frame.rows), len(frame.columns)
    size = height * width
    if layout.count > size:
        raise ValueError(f"{layout.count} non-zeros in {height} rows of {width}")
    if layout.count == size:
        return np.arange(size)
    weights, area = layout.weights, frame.kernel[0] * frame.kernel[1]
    matrix = Matrix(
        height,
        width,
        frame.kernel,
        layout.count,
        has_neighbours=weights.neighbour != 0,
        by_kernel=by_kernel(weights.kernel, area) if weights.kernel and area > 1 else None,
    )
    own = None
    if rows is not None and places is not None:
        own = places_of(frame.rows, rows), places_of(frame.columns, places)
    if any(layout.weights):
        code_matrix(coder, matrix, layout.weights, None if own is None else matrix.folded(*own))
        found = matrix.positions()
    else:
        marks = None
        if own is not None:
            marks = np.zeros(size, np.bool_)
            marks[own[0] * width + own[1]] = True
        (found,) = np.nonzero(code_mask(coder, size, layout.count, marks))
    if len(found) != layout.count:
        raise ValueError(f"{len(found)} non-zeros found, {layout.count} announced")
    return found


def places_of(coded: Integers, wanted: Integers) -> Integers:
    """The places of the ``wanted`` numbers among the ``coded`` ones."""
    places = np.full(int(coded.max()) + 1, -1)
    places[coded] = np.arange(len(coded))
    result: Integers = places[wanted]
    return result


def basis_of(weight: Weight, u: Integers, v: Integers) -> Mask:
    """Which indices of the inner dimension U and V use, from the positions of their non-zeros."""
    used = np.zeros(weight.inner, np.bool_)
    used[u % weight.inner] = True
    used[v // weight.columns % weight.inner] = True
    return used


def code_network(coder: Coder, header: Header, contents: Contents | None) -> Contents:
    """Code all factors and other tensors of a network.

    Args:
        coder: writes or reads.
        header: what the header says.
        contents: what is written; None when reading.

    Raises:
        ValueError: if what is read contradicts the header.
    """
    factors = None if contents is None else contents.factors
    coder.part("positions")
    positions: list[Integers] = []
    for index in range(len(header.tensors.weights)):
        own = None if factors is None else factors[3 * index : 3 * index + 3]
        positions += _code_weight(coder, header, index, own)
    values = _code_values(coder, header, None if factors is None else [f.values for f in factors])
    others = _code_others(coder, header, None if contents is None else contents.others)
    shapes = [shape for weight in header.tensors.weights for shape in weight.factor_shapes]
    return Contents(tuple(map(Sparse, shapes, positions, values)), others)


def _code_weight(
    coder: Coder, header: Header, index: int, own: Sequence[Sparse] | None
) -> list[Integers]:
    """Code the positions of a weight's U, V and C, in this order."""
    weight = header.tensors.weights[index]
    mask = None if own is None else basis_of(weight, own[U].positions, own[V].positions)
    basis = code_mask(coder, weight.inner, header.basis[index], mask)
    positions = [np.zeros(0, np.int64)] * 3
    for role, layout in enumerate(header.factors[3 * index : 3 * index + 3]):
        if layout.count:
            frame = frame_of(weight, role, layout.side, basis)
            columns = weight.factor_shapes[role][2]
            known = None if own is None else own[role].positions
            positions[role] = code_positions(coder, frame, layout, columns, known)
    return positions


def _code_values(coder: Coder, header: Header, values: Sequence[Floats] | None) -> list[Floats]:
    """Code the values of all factors' non-zeros, in the order of their positions."""
    counts = [layout.count for layout in header.factors]
    if header.bits > CODEBOOK_BITS:
        coder.part("values")
        kind = Kind.FLOAT16 if header.bits == 16 else Kind.FLOAT32
        flat = None if values is None else np.concatenate([_NONE, *values])
        return _parts(code_floats(coder, kind, counts, flat), counts)
    coder.part("codes")
    known = None if values is None else [np.unique(v, return_inverse=True) for v in values]
    codes = []
    for index, layout in enumerate(header.factors):
        own = None if known is None else known[index][1].astype(np.int64)
        codes.append(code_symbols(coder, layout.book, smoothly, layout.count, own))
    coder.part("codebooks")
    sizes = [layout.book for layout in header.factors]
    flat = None if known is None else np.concatenate([_NONE, *(book for book, _ in known)])
    books = code_codebooks(coder, header.codebook_kind, [size for size in sizes if size], flat)
    return [book[own] for book, own in zip(_parts(books, sizes), codes, strict=True)]


def _parts(flat: Floats, sizes: Sequence[int]) -> list[Floats]:
    """Consecutive runs of an array."""
    ends = np.cumsum(sizes)
    return [flat[end - size : end] for end, size in zip(ends, sizes, strict=True)]


def _code_others(
    coder: Coder, header: Header, others: Sequence[Floats] | None
) -> tuple[Floats, ...]:
    """Code the other tensors, those with names of one ending together."""
    found: dict[int, Floats] = {}
    listed = header.tensors.others
    groups = zip(groups_of(listed).items(), header.kinds, header.rising, strict=True)
    for (ending, indices), kind, rising in groups:
        coder.part(ending)
        sizes = [listed[index].size for index in indices]
        known = None
        if others is not None:
            known = np.concatenate([_NONE, *(others[index].reshape(-1) for index in indices)])
        flat = code_floats(coder, kind, sizes, known, rising)
        found |= zip(indices, _parts(flat, sizes), strict=True)
    return tuple(found[index].reshape(other.shape) for index, other in enumerate(listed))
