"""The quantisation constraint: at most 2^b distinct non-zero values in a tensor.

The nearest such tensor is found by one-dimensional k-means with one additional centre fixed at
zero. The values are sorted once. Prefix sums then give the squared error of any run of sorted
values in constant time, so no N x K matrix of distances is needed.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

#: Up to this many distinct non-zero values, the projection is exact (dynamic programming). If there
#: are more, this many weighted representatives are clustered exactly, and Lloyd's iterations on all
#: values follow. In the tests the error is within 1 % of the exact one, for 4 to 256 centres.
EXACT_LIMIT = 1024
_MAX_BITS = 8
# Lloyd's iterations end after so many, or when the error falls by less than this share.
_LLOYD_ITERATIONS = 100
_LLOYD_TOLERANCE = 1e-5
# ``requantize`` runs this many of Lloyd's iterations.
_RENEWALS = 2
# Entries are processed in parts of this size, which bounds the size of temporaries.
_PART = 2**20
# Divisors are kept above zero by the smallest of magnitudes in float32 and in float64.
_TINY_FLOAT, _TINY_DOUBLE = 1e-30, 1e-300
# Each tensor's scaled values are in [-1, 1]; the intervals of two tensors begin this far apart.
_INTERVAL = 4

_Array = NDArray[np.float64]
_Index = NDArray[np.int64]


@dataclass(frozen=True)
class Quantized:
    """A projected tensor.

    Attributes:
        values: the projection, with the input's shape, dtype and device.
        codebook: the distinct non-zero values of the projection, float32 ``[K]`` with K at most
            2^bits, ascending.
    """

    values: Tensor
    codebook: Tensor


def quantize(tensor: Tensor, bits: int, *, start: Tensor | None = None) -> Quantized:
    """The nearest tensor with at most 2^bits distinct non-zero values.

    Args:
        tensor: float, of any shape; its zeros stay zero.
        bits: 1 to 8.
        start: a codebook to start from, ``[K]``. Only Lloyd's iterations are run then, which is
            much faster but not exact. In a loop whose tensor changes little, pass the last one.

    Raises:
        ValueError: if ``bits`` is not in 1 to 8, or a value is not finite.
    """
    if not 1 <= bits <= _MAX_BITS:
        raise ValueError(f"bits is {bits}: codebooks have 1 to 8 bits")
    flat = tensor.detach().reshape(-1)
    ordered = _sort(flat[flat != 0])
    if not torch.isfinite(ordered[[0, -1]] if len(ordered) else ordered).all():
        raise ValueError("the tensor holds NaN or infinite values")
    size = 2**bits
    if start is not None and len(start):
        centres = _lloyd(ordered, start.double())
    else:
        if int((ordered[1:] != ordered[:-1]).sum()) < EXACT_LIMIT:
            distinct, counts = torch.unique_consecutive(ordered, return_counts=True)
            if len(distinct) <= size:
                return Quantized(tensor.detach().clone(), distinct.float())
            centres = _exact_centres(distinct, counts.double(), size)
        else:
            start = _exact_centres(*_representatives(ordered, EXACT_LIMIT), size)
            centres = _lloyd(ordered, start, size)
    codebook = _as_codebook(centres)
    return Quantized(_nearest(flat, codebook).view_as(tensor), codebook)


def padded(codebook: Tensor, bits: int) -> Tensor:
    """Lengthen a codebook ``[K]`` to ``[2^bits]`` by repeating its last value (zeros if K is 0)."""
    last = codebook[-1:] if len(codebook) else codebook.new_zeros(1)
    return torch.cat([codebook, last.expand(2**bits - len(codebook))])


def requantize(flat: Tensor, ends: Tensor, codebooks: Tensor, out: Tensor) -> Tensor:
    """Quantise many tensors at once that have changed little since they had these codebooks.

    A few of Lloyd's iterations are run: this is not exact, but cheap, and on a GPU Python does not
    wait for the device.

    Args:
        flat: T flattened tensors, one after the other, float32 ``[N]``; their zeros stay zero.
        ends: the index at which each tensor ends, int64 ``[T]``.
        codebooks: each tensor's codebook, ``padded``, float32 ``[T, 2^bits]``. A value that is the
            nearest one of no entry stays as it is.
        out: receives the quantised tensors, float32 ``[N]``.

    Returns:
        The new codebooks, float32 ``[T, 2^bits]``.
    """
    # On a GPU, skipping zeros would mean to wait for their number.
    return requantized(flat, ends, codebooks, out, skip_zeros=flat.device.type == "cpu")


def requantized(
    flat: Tensor, ends: Tensor, codebooks: Tensor, out: Tensor, *, skip_zeros: bool
) -> Tensor:
    """As ``requantize``.

    Args:
        flat: as in ``requantize``.
        ends: as in ``requantize``.
        codebooks: as in ``requantize``.
        out: as in ``requantize``.
        skip_zeros: whether zeros are left out of the computation; this changes rounding only.
    """
    tables = _Tables(ends, codebooks, skip_zeros)
    for _ in range(_RENEWALS):
        sums = torch.zeros(2, tables.cells, dtype=torch.double, device=flat.device)
        for start in range(0, len(flat), _PART):
            values, place = tables.entries(flat, start)
            cell = tables.cell(values, place)
            sums[0].scatter_add_(0, cell, values.new_ones((), dtype=torch.double).expand_as(cell))
            sums[1].scatter_add_(0, cell, values.double())
        tables = _Tables(ends, tables.renewed(*sums), skip_zeros)
    for start in range(0, len(flat), _PART):
        values, place = tables.entries(flat, start)
        nearest = tables.centres.view(-1)[tables.cell(values, place).clamp_max(tables.last)]
        part = out[start : start + _PART]
        if skip_zeros:
            part.zero_().index_copy_(0, place - start, nearest)
        else:
            torch.mul(nearest, values != 0, out=part)
    return tables.codebooks


class _Tables:
    """The codebooks of many tensors, in a form in which all are searched at once.

    The values of each tensor are scaled into an interval of its own, so one sorted list of
    boundaries serves all tensors. The cell of a value is the number of its nearest centre, counted
    over all tensors. Zeros must not move a centre, so zeros that are not skipped get cells of their
    own after all others. There are many such cells, because GPU threads that add to the same number
    wait for each other.

    Attributes:
        centres: each tensor's codebook and the centre at zero, ascending, ``[T, K + 1]``.
        cells: the number of cells, including those of zeros.
        last: the last cell that belongs to a centre.
    """

    #: The number of cells of zeros.
    SPREAD = 4096

    def __init__(self, ends: Tensor, codebooks: Tensor, skip_zeros: bool) -> None:
        self.ends, self.codebooks, self.skip_zeros = ends, codebooks, skip_zeros
        rows = torch.arange(len(codebooks), device=codebooks.device)
        self.centres = F.pad(codebooks, (0, 1)).sort(1).values
        self.scale = codebooks.abs().amax(1).clamp_min(_TINY_FLOAT)
        middles = (self.centres[:, 1:] + self.centres[:, :-1]).double() / 2
        scaled = middles / self.scale.unsqueeze(1)
        self.boundaries = (_INTERVAL * rows.unsqueeze(1) + scaled).view(-1)
        self.last = self.centres.numel() - 1
        self.cells = self.centres.numel() + self.SPREAD

    def entries(self, flat: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """The values of a part of ``flat`` (without zeros if they are skipped) and their indices.

        Args:
            flat: as in ``requantize``, ``[N]``.
            start: the index at which the part begins.

        Returns:
            The values, ``[M]``, and their indices in ``flat``, int64 ``[M]``.
        """
        part = flat[start : start + _PART]
        if self.skip_zeros:
            place = part.nonzero()[:, 0]
            return part[place], place + start
        return part, torch.arange(start, start + len(part), device=flat.device)

    def cell(self, values: Tensor, place: Tensor) -> Tensor:
        """The cell of each value, int64 ``[M]``; arguments as ``entries`` returns them."""
        row = torch.searchsorted(self.ends, place, right=True)
        scaled = (values.double() / self.scale[row]).clamp_(-1, 1)
        cell = torch.searchsorted(self.boundaries, scaled.add_(row, alpha=_INTERVAL)) + row
        if self.skip_zeros:
            return cell
        return torch.where(values == 0, self.last + 1 + place % self.SPREAD, cell)

    def renewed(self, counts: Tensor, sums: Tensor) -> Tensor:
        """The codebooks with each value moved to the mean of its cell, ``[T, K]``.

        Args:
            counts: the number of values in each cell, float64 ``[cells]``.
            sums: the sum of the values in each cell, float64 ``[cells]``.
        """
        counts, sums = (each[: self.last + 1].view_as(self.centres) for each in (counts, sums))
        means = torch.where(counts > 0, (sums / counts.clamp_min(1)).float(), self.centres)
        # Values that were below zero keep their position. After them the centre at zero is skipped.
        negative = self.centres[:, :-1] < 0
        return torch.where(negative, means[:, :-1], means[:, 1:]).sort(1).values


def _sort(values: Tensor) -> Tensor:
    """The values in ascending order, float64. (On a CPU numpy sorts several times faster.)"""
    if values.device.type == "cpu":
        return torch.from_numpy(np.sort(values.numpy())).double()
    return torch.sort(values).values.double()


def _as_codebook(centres: Tensor) -> Tensor:
    rounded = centres.float()
    codebook: Tensor = torch.unique(rounded[rounded != 0])
    return codebook


def _with_zero(codebook: Tensor) -> Tensor:
    """The codebook with a centre at zero added, ascending, ``[K + 1]``."""
    return torch.cat([codebook, codebook.new_zeros(1)]).sort().values


def _boundaries(centres: Tensor) -> Tensor:
    return (centres[1:] + centres[:-1]) / 2


def _nearest(flat: Tensor, codebook: Tensor) -> Tensor:
    centres = _with_zero(codebook)
    nearest = centres[torch.bucketize(flat.float(), _boundaries(centres))]
    return nearest.masked_fill_(flat == 0, 0).to(flat.dtype)


def _representatives(ordered: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Replace sorted values by at most ``size`` weighted means of runs of them.

    The runs are chosen such that the error is small: the optimal density of centres is proportional
    to the cube root of the density of the values (Panter and Dite, 1951), so each gap between
    neighbours counts with its width to the power 2/3.

    Args:
        ordered: ascending, float64 ``[N]``.
        size: the largest number of runs.

    Returns:
        The means, ascending, and the numbers of values that they stand for, float64 ``[M]`` each.
    """
    position = torch.cumsum((ordered[1:] - ordered[:-1]) ** (2 / 3), 0)
    position = torch.cat([position.new_zeros(1), position]) * (
        size / position[-1].clamp_min(_TINY_DOUBLE)
    )
    cell = position.long().clamp_max(size - 1)
    counts = torch.zeros(size, dtype=torch.double, device=ordered.device)
    counts.index_add_(0, cell, torch.ones_like(ordered))
    sums = torch.zeros_like(counts).index_add_(0, cell, ordered)
    used = counts > 0
    return sums[used] / counts[used], counts[used]


def _lloyd(ordered: Tensor, start: Tensor, size: int | None = None) -> Tensor:
    """Run Lloyd's iterations on sorted values, with one additional centre fixed at zero.

    A centre that is the nearest one of no value moves into a run with a large error, so ``size``
    centres are used if they reduce the error.

    Args:
        ordered: the values, ascending, float64 ``[N]``.
        start: the first centres, float64 ``[K]``.
        size: the number of centres; by default K.

    Returns:
        The centres but the one at zero, float64, at most ``size`` of them.
    """
    size = size or len(start)
    prefix = torch.cat([ordered.new_zeros(1), ordered.cumsum(0)])
    squares = torch.cat([ordered.new_zeros(1), ordered.square().cumsum(0)])
    zero = ordered.new_zeros(1)
    centres, last = start[start != 0], float("inf")
    for iteration in range(_LLOYD_ITERATIONS):
        every = torch.cat([centres, zero]).sort().values
        edges = torch.searchsorted(ordered, (every[1:] + every[:-1]) / 2)
        edges = torch.cat([edges.new_zeros(1), edges, edges.new_full((1,), len(ordered))])
        count = edges.diff()
        total, square = prefix[edges].diff(), squares[edges].diff()
        mean = torch.where(every == 0, 0, total / count.clamp_min(1))
        error = square - 2 * mean * total + count * mean.square()
        centres = mean[(count > 0) & (every != 0)]
        now = float(error.sum())
        spare = size - len(centres)
        if spare > 0 and iteration < _LLOYD_ITERATIONS // 2:
            centres = torch.cat([centres, _split(ordered, edges, every, error, spare)])
        elif last - now <= _LLOYD_TOLERANCE * now:
            break
        last = now
    return centres


def _split(ordered: Tensor, edges: Tensor, every: Tensor, error: Tensor, spare: int) -> Tensor:
    """New centres, at most ``spare``, at the far ends of the runs with the largest error."""
    worst = torch.argsort(error, descending=True)[:spare]
    worst = worst[error[worst] > 0]
    low, high = ordered[edges[worst]], ordered[(edges[worst + 1] - 1).clamp_min(0)]
    return torch.where(every[worst] - low > high - every[worst], low, high)


def _exact_centres(values: Tensor, weights: Tensor, size: int) -> Tensor:
    """Optimal centres of weighted values, besides the one at zero, by dynamic programming.

    After c layers, row 0 of ``best`` is the least error of the first i values with c centres, and
    row 1 is the same if one more run is assigned to the centre at zero. The cost of a run satisfies
    the quadrangle inequality, so the best start of the last run never decreases as i grows.
    Therefore divide and conquer finds each layer, and the whole takes O(size * n log n). Both rows,
    and all subproblems of a level, are computed at once.

    Args:
        values: distinct and ascending, float64 ``[n]``.
        weights: how often each value occurs, float64 ``[n]``.
        size: the number of centres.

    Returns:
        The centres, ascending, float64, at most ``size`` of them.
    """
    table = _RunCost(values.cpu().numpy(), weights.cpu().numpy())
    ends = np.arange(len(table.squares))
    best = np.stack([np.where(ends == 0, 0.0, np.inf), table.squares])
    starts, zero_starts = [], [np.zeros_like(ends)]
    for _ in range(size):
        best, start = table.add_run(best)
        # If the run at zero comes last, after this layer's centres, row 1 continues from row 0.
        gain = best[0] - table.squares
        least = np.minimum.accumulate(gain)
        zero_start = np.maximum.accumulate(np.where(gain <= least, ends, 0))
        zero_last = table.squares + least < best[1]
        best[1] = np.where(zero_last, table.squares + least, best[1])
        starts.append(start)
        zero_starts.append(np.where(zero_last, zero_start, -1))
    return torch.from_numpy(_trace(table, starts, zero_starts)).to(values.device)


def _trace(table: "_RunCost", starts: list[_Index], zero_starts: list[_Index]) -> _Array:
    """The means of the runs that the dynamic programme chose, found from the last one backwards."""
    centres, end, layer, row = [], len(table.squares) - 1, len(starts), 1
    while end > 0:
        if row == 1 and zero_starts[layer][end] >= 0:
            end, row = int(zero_starts[layer][end]), 0
            continue
        begin, layer = int(starts[layer - 1][row, end]), layer - 1
        if begin < end:
            centres.append(table.mean(begin, end))
        end = begin
    return np.sort(np.array(centres, np.float64))


class _RunCost:
    """The costs of runs of sorted weighted values: their squared error about their mean."""

    def __init__(self, x: _Array, w: _Array) -> None:
        self.count, self.total, self.squares = (
            np.concatenate([[0.0], np.cumsum(terms)]) for terms in (w, w * x, w * x * x)
        )
        # The cost of every run, a flattened matrix [begin, end] of about EXACT_LIMIT^2 numbers.
        count, total, square = (
            prefix[None, :] - prefix[:, None] for prefix in (self.count, self.total, self.squares)
        )
        self.costs = np.maximum(square - total * total / np.where(count > 0, count, 1), 0).ravel()

    def mean(self, begin: int, end: int) -> float:
        return float((self.total[end] - self.total[begin]) / (self.count[end] - self.count[begin]))

    def add_run(self, before: _Array) -> tuple[_Array, _Index]:
        """Compute one layer: the least errors if one more run is added.

        Args:
            before: the least error of the first j values, ``[rows, n + 1]``.

        Returns:
            For every row and end i, the least ``before[j] + cost(j, i)`` over j <= i, and the j
            that gives it, ``[rows, n + 1]`` each.
        """
        rows, n = before.shape[0], before.shape[1] - 1
        value, start = np.full_like(before, np.inf), np.zeros(before.shape, np.int64)
        value[:, 0] = before[:, 0]
        # The intervals [low, high] of ends that are not solved yet, and the first and last starts
        # that are possible for them.
        row = np.arange(rows)
        low, high = np.ones(rows, np.int64), np.full(rows, n)
        first, last = np.zeros(rows, np.int64), np.full(rows, n)
        while len(low):
            middle = (low + high) // 2
            length = np.minimum(last, middle) - first + 1
            offset = np.cumsum(length) - length
            begin = np.arange(length.sum()) + np.repeat(first - offset, length)
            candidate = before.take(begin + np.repeat(row * (n + 1), length))
            candidate += self.costs.take(begin * (n + 1) + np.repeat(middle, length))
            least = np.minimum.reduceat(candidate, offset)
            hits = np.flatnonzero(candidate == np.repeat(least, length))
            chosen = begin[hits[np.searchsorted(hits, offset)]]
            value[row, middle], start[row, middle] = least, chosen
            below = np.array([row, low, middle - 1, first, chosen])[:, low < middle]
            above = np.array([row, middle + 1, high, chosen, last])[:, middle < high]
            row, low, high, first, last = np.concatenate([below, above], axis=1)
        return value, start
