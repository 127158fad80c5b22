"""The quantisation constraint: at most 2^b distinct non-zero values in a tensor.

The nearest such point is a one-dimensional k-means with one more centre fixed at zero. Values are
sorted once; the squared error of any run of sorted values then follows from prefix sums in constant
time, so nothing of size N x K is ever built.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

#: Up to this many distinct non-zero values the projection is exact (dynamic programming). Above it,
#: as many weighted representatives are clustered exactly and Lloyd's iterations on all values
#: follow: within 1 % of the exact error in the tests, for 4 to 256 centres.
EXACT_LIMIT = 1024
_LLOYD_ITERATIONS = 100
_LLOYD_TOLERANCE = 1e-5
_RENEWALS = 2
# Entries that are looked at together: temporaries are of this size.
_PART = 2**20

_Array = NDArray[np.float64]
_Index = NDArray[np.int64]


@dataclass(frozen=True)
class Quantized:
    """A projected tensor.

    Attributes:
        values: the nearest point, of the input's shape, dtype and device.
        codebook: its distinct non-zero values, ascending, float32, at most 2^b of them.
    """

    values: Tensor
    codebook: Tensor


def quantize(tensor: Tensor, bits: int, *, start: Tensor | None = None) -> Quantized:
    """The nearest tensor with at most 2^bits distinct non-zero values.

    Args:
        tensor: any shape; zeros stay zero.
        bits: 1 to 8.
        start: a codebook to go on from (the last one, in a loop whose tensor moves little): Lloyd's
            iterations from there only, much faster, not exact.

    Raises:
        ValueError: if bits is not in 1 to 8, or a value is not finite.
    """
    if not 1 <= bits <= 8:
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
    """A codebook in the length 2^bits, its last value repeated (zeros if it has none)."""
    last = codebook[-1:] if len(codebook) else codebook.new_zeros(1)
    return torch.cat([codebook, last.expand(2**bits - len(codebook))])


def requantize(flat: Tensor, ends: Tensor, codebooks: Tensor, out: Tensor) -> Tensor:
    """Near points with few distinct values, of many tensors at once, from codebooks that fitted.

    A few of Lloyd's iterations on tensors that have moved little: not exact, but cheap, and on a
    GPU nothing waits for the device.

    Args:
        flat: T tensors side by side; zeros stay zero.
        ends: where each of them ends, int64 ``[T]``.
        codebooks: of each, ascending non-zero values, ``padded``, ``[T, 2^bits]``; a value that
            serves no entry stays as it is.
        out: where the points go, like ``flat``.

    Returns:
        The codebooks as they are now.
    """
    # On a GPU how many are not zero could not be known without waiting.
    return requantized(flat, ends, codebooks, out, skip_zeros=flat.device.type == "cpu")


def requantized(
    flat: Tensor, ends: Tensor, codebooks: Tensor, out: Tensor, *, skip_zeros: bool
) -> Tensor:
    """``requantize``, with zeros left out or taken along: the same but for rounding."""
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
    """The codebooks of many tensors, each with the centre at zero, searched at once.

    Every tensor's values are scaled into an interval of their own, so one sorted row of boundaries
    serves all. Zeros move no centre. Those that are not skipped go to cells behind all others, to
    many of them: threads that add to one number wait for each other.

    Attributes:
        centres: ascending, ``[T, K + 1]``.
        cells: cells that can be returned, those for zeros included.
        last: the last that is a centre's.
    """

    SPREAD = 4096

    def __init__(self, ends: Tensor, codebooks: Tensor, skip_zeros: bool) -> None:
        self.ends, self.codebooks, self.skip_zeros = ends, codebooks, skip_zeros
        rows = torch.arange(len(codebooks), device=codebooks.device)
        self.centres = F.pad(codebooks, (0, 1)).sort(1).values
        self.scale = codebooks.abs().amax(1).clamp_min(1e-30)
        middles = (self.centres[:, 1:] + self.centres[:, :-1]).double() / 2
        self.boundaries = (4 * rows.unsqueeze(1) + middles / self.scale.unsqueeze(1)).view(-1)
        self.last = self.centres.numel() - 1
        self.cells = self.centres.numel() + self.SPREAD

    def entries(self, flat: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Values of a part of ``flat``, all or only the non-zero ones, and where they are in it."""
        part = flat[start : start + _PART]
        if self.skip_zeros:
            place = part.nonzero()[:, 0]
            return part[place], place + start
        return part, torch.arange(start, start + len(part), device=flat.device)

    def cell(self, values: Tensor, place: Tensor) -> Tensor:
        """The cell of each value, int64."""
        row = torch.searchsorted(self.ends, place, right=True)
        scaled = (values.double() / self.scale[row]).clamp_(-1, 1)
        cell = torch.searchsorted(self.boundaries, scaled.add_(row, alpha=4)) + row
        if self.skip_zeros:
            return cell
        return torch.where(values == 0, self.last + 1 + place % self.SPREAD, cell)

    def renewed(self, counts: Tensor, sums: Tensor) -> Tensor:
        """The codebooks with each value moved to the mean of its cell."""
        counts, sums = (each[: self.last + 1].view_as(self.centres) for each in (counts, sums))
        means = torch.where(counts > 0, (sums / counts.clamp_min(1)).float(), self.centres)
        # What was below zero keeps its place; behind it the centre at zero is left out.
        negative = self.centres[:, :-1] < 0
        return torch.where(negative, means[:, :-1], means[:, 1:]).sort(1).values


def _sort(values: Tensor) -> Tensor:
    """Ascending, in float64. (On a CPU numpy's sort is several times faster than torch's.)"""
    if values.device.type == "cpu":
        return torch.from_numpy(np.sort(values.numpy())).double()
    return torch.sort(values).values.double()


def _as_codebook(centres: Tensor) -> Tensor:
    rounded = centres.float()
    codebook: Tensor = torch.unique(rounded[rounded != 0])
    return codebook


def _with_zero(codebook: Tensor) -> Tensor:
    """The codebook and the centre at zero, ascending."""
    return torch.cat([codebook, codebook.new_zeros(1)]).sort().values


def _boundaries(centres: Tensor) -> Tensor:
    return (centres[1:] + centres[:-1]) / 2


def _nearest(flat: Tensor, codebook: Tensor) -> Tensor:
    centres = _with_zero(codebook)
    nearest = centres[torch.bucketize(flat.float(), _boundaries(centres))]
    return nearest.masked_fill_(flat == 0, 0).to(flat.dtype)


def _representatives(ordered: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """About ``size`` weighted means of runs of sorted values, where they hurt least.

    The optimal density of centres goes with the cube root of the values' density (Panter and Dite,
    1951): each gap between neighbours counts with its width to the power 2/3.
    """
    position = torch.cumsum((ordered[1:] - ordered[:-1]) ** (2 / 3), 0)
    position = torch.cat([position.new_zeros(1), position]) * (
        size / position[-1].clamp_min(1e-300)
    )
    cell = position.long().clamp_max(size - 1)
    counts = torch.zeros(size, dtype=torch.double, device=ordered.device)
    counts.index_add_(0, cell, torch.ones_like(ordered))
    sums = torch.zeros_like(counts).index_add_(0, cell, ordered)
    used = counts > 0
    return sums[used] / counts[used], counts[used]


def _lloyd(ordered: Tensor, start: Tensor, size: int | None = None) -> Tensor:
    """Lloyd's iterations on sorted values, one centre fixed at zero.

    Centres that serve no value move into the runs with the largest error; ``size`` centres are used
    if there is something for them to do (by default as many as ``start`` has).
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
    """New centres at the far ends of the runs with the largest error."""
    worst = torch.argsort(error, descending=True)[:spare]
    worst = worst[error[worst] > 0]
    low, high = ordered[edges[worst]], ordered[(edges[worst + 1] - 1).clamp_min(0)]
    return torch.where(every[worst] - low > high - every[worst], low, high)


def _exact_centres(values: Tensor, weights: Tensor, size: int) -> Tensor:
    """Optimal centres of weighted sorted distinct values, by dynamic programming over runs.

    Row 0 of ``best`` is the least error of the first i values with c centres, row 1 the same with
    the centre at zero used as well. A run's cost satisfies the quadrangle inequality, so the best
    start of the last run moves one way only and each layer is found by divide and conquer, both
    rows and all middles of a level at once: O(size * n log n).
    """
    table = _RunCost(values.cpu().numpy(), weights.cpu().numpy())
    ends = np.arange(len(table.squares))
    best = np.stack([np.where(ends == 0, 0.0, np.inf), table.squares])
    starts, zero_starts = [], [np.zeros_like(ends)]
    for _ in range(size):
        best, start = table.add_run(best)
        # The run at zero may come last, after this layer's centres: then row 1 continues row 0.
        gain = best[0] - table.squares
        least = np.minimum.accumulate(gain)
        zero_start = np.maximum.accumulate(np.where(gain <= least, ends, 0))
        zero_last = table.squares + least < best[1]
        best[1] = np.where(zero_last, table.squares + least, best[1])
        starts.append(start)
        zero_starts.append(np.where(zero_last, zero_start, -1))
    return torch.from_numpy(_trace(table, starts, zero_starts)).to(values.device)


def _trace(table: "_RunCost", starts: list[_Index], zero_starts: list[_Index]) -> _Array:
    """The means of the runs that the dynamic programme chose, from the last one back."""
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
    """Squared error about their mean of runs of sorted weighted values, from prefix sums."""

    def __init__(self, x: _Array, w: _Array) -> None:
        self.count, self.total, self.squares = (
            np.concatenate([[0.0], np.cumsum(terms)]) for terms in (w, w * x, w * x * x)
        )
        # Every run's cost, [begin, end] flattened: at most EXACT_LIMIT squared numbers.
        count, total, square = (
            prefix[None, :] - prefix[:, None] for prefix in (self.count, self.total, self.squares)
        )
        self.costs = np.maximum(square - total * total / np.where(count > 0, count, 1), 0).ravel()

    def mean(self, begin: int, end: int) -> float:
        return float((self.total[end] - self.total[begin]) / (self.count[end] - self.count[begin]))

    def add_run(self, before: _Array) -> tuple[_Array, _Index]:
        """For every row and end i: the least ``before[j] + cost(j, i)`` over j <= i, and that j."""
        rows, n = before.shape[0], before.shape[1] - 1
        value, start = np.full_like(before, np.inf), np.zeros(before.shape, np.int64)
        value[:, 0] = before[:, 0]
        # Intervals (low, high) of ends not yet solved, and where their starts can lie.
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
