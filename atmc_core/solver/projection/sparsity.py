"""The joint l0 constraint: one budget of non-zeros over many tensors, seen as one."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Every so many-th score is looked at first, to leave out most of the others (a prime, so that it
# does not fall into step with rows and columns).
_STRIDE = 61
# Ties are counted in so many scores at a time: temporaries are of this size.
_PART = 2**20


def mark_largest(scores: Tensor, k: int) -> Tensor:
    """Replace the k largest scores by one and the others by zero, in place.

    With the magnitudes as scores, ``theta * marks`` is the nearest point with at most k non-zeros.
    Exactly min(k, N) entries are marked: of equal scores the first ones, on a GPU any, but there
    nothing waits for the device.

    Args:
        scores: non-negative, float32 ``[N]``, overwritten.
        k: number of entries to mark, at least 0.

    Returns:
        ``scores``.

    Raises:
        ValueError: if k is negative.
    """
    if k < 0:
        raise ValueError(f"k is {k}: it must be at least 0")
    if k == 0 or k >= len(scores):
        return scores.fill_(k > 0)
    return (_mark_on_cpu if scores.device.type == "cpu" else mark_by_topk)(scores, k)


def mark_balanced(scores: Tensor, sizes: Sequence[int], k: int) -> Tensor:
    """Replace k of the scores by one and the others by zero, in place, so that no layer starves.

    The product over the layers of what is kept of their squares is the largest that k entries can
    have, so it makes no difference in what units a layer is. That is the order of LAMP (Lee et al.,
    "Layer-adaptive sparsity for the magnitude-based pruning", 2021): an entry's square over the sum
    of its own and all larger ones of its layer. The logarithm of a layer's sum is concave in how
    many of its largest are in it, so taking the k best of all is optimal. Each layer keeps one,
    while k allows. Zeros are never marked, and of others exactly k, or all. Equal ones are treated
    as by ``mark_largest``.

    Args:
        scores: non-negative, float32 ``[N]``, the layers side by side, overwritten.
        sizes: of the layers; they add up to N.
        k: number of entries to mark, at least 0.

    Returns:
        ``scores``.

    Raises:
        ValueError: if k is negative.
    """
    if k <= 0:
        return mark_largest(scores, k)
    balance = _balance_on_cpu if scores.device.type == "cpu" else balance_by_topk
    return balance(scores, sizes, k)


def mark_by_topk(scores: Tensor, k: int) -> Tensor:
    """``mark_largest`` where torch.topk selects by radix: on a GPU."""
    drop = 2 * k > len(scores)  # whichever is less to list
    count = len(scores) - k if drop else k
    listed = torch.topk(scores, count, largest=not drop, sorted=False).indices
    return scores.fill_(drop).index_fill_(0, listed, not drop)


def balance_by_topk(scores: Tensor, sizes: Sequence[int], k: int) -> Tensor:
    """``mark_balanced`` likewise, for k above 0."""
    layers = torch.split(scores, list(sizes))
    counts = [min(k, len(layer)) for layer in layers]
    order, places = (scores.new_empty(sum(counts), dtype=t) for t in (scores.dtype, torch.int64))
    parts = list(zip(layers, torch.split(order, counts), torch.split(places, counts), strict=True))
    for layer, largest, place in parts:
        torch.topk(layer, len(largest), out=(largest, place))
    nonzero = order > 0
    for _, largest, _ in parts:
        _order(largest)
    mark_largest(order, k).mul_(nonzero)
    scores.zero_()
    for layer, marks, place in parts:
        layer.scatter_(0, place, marks)
    return scores


def _balance_on_cpu(scores: Tensor, sizes: Sequence[int], k: int) -> Tensor:
    layers = torch.split(scores, list(sizes))
    counts = [min(k, int(layer.count_nonzero())) for layer in layers]
    order = scores.new_empty(sum(counts))
    for layer, largest in zip(layers, torch.split(order, counts), strict=True):
        ordinals = _largest(_ordinals(layer).numpy(), len(largest))
        ordinals.sort()
        _ordinals(largest).numpy()[:] = ordinals[::-1]
        _order(largest)
    for layer, marks in zip(layers, torch.split(mark_largest(order, k), counts), strict=True):
        mark_largest(layer, int(marks.sum(dtype=torch.int64)))
    return scores


def _order(descending: Tensor) -> None:
    """Replace scores by their squares over the sums of all up to theirs; float64 in between."""
    squares = descending.double().square_()
    torch.div(squares, squares.cumsum(0).clamp_min_(1e-300), out=descending)


def _ordinals(scores: Tensor) -> Tensor:
    """Non-negative floats are ordered as the integers that their bits are."""
    return scores.detach().view(torch.int32)


def _mark_on_cpu(scores: Tensor, k: int) -> Tensor:
    ordinals = _ordinals(scores)
    kept = torch.from_numpy(_largest(ordinals.numpy(), k))
    threshold = kept.min() if len(kept) == k else ordinals.new_zeros(())
    remaining = k - (kept > threshold).sum()
    for part, marks in zip(torch.split(ordinals, _PART), torch.split(scores, _PART), strict=True):
        ties = part == threshold
        rank = ties.cumsum(0, dtype=torch.int32)
        marks.copy_((part > threshold) | (ties & (rank <= remaining)))
        remaining = remaining - rank[-1]
    return scores


def _largest(flat: NDArray[np.int32], k: int) -> NDArray[np.int32]:
    """The k largest in no order, or all that are not zero if those are fewer.

    A sample tells a value that the k largest are above, so only few are copied and partitioned.
    (numpy's partition is the fastest there is on a CPU: 12 times as fast as torch.kthvalue.)
    """
    sample = flat[::_STRIDE]
    rank = k / _STRIDE
    rank += 6 * math.sqrt(rank) + 10  # so far off is no sample in a life
    least = np.partition(sample, -int(rank))[-int(rank)] if rank < len(sample) else 0
    if least > 0:
        largest = flat[flat >= least]
    if least == 0 or len(largest) < k:  # scores that repeat every so many do fool a sample
        largest = flat[flat > 0]
    if len(largest) <= k:
        return largest
    largest.partition(len(largest) - k)
    return largest[-k:]
