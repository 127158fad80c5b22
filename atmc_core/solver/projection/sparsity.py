"""The joint l0 constraint: a budget of non-zeros for many tensors together."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# A sample of every 61st score shows which scores can be ignored. The number is a prime, so that the
# sample does not follow the rows or columns of a weight.
_STRIDE = 61
# The sample's estimate of a rank is widened by this many standard deviations and this many ranks,
# so it is practically never too narrow for scores in random order.
_DEVIATIONS, _EXTRA_RANKS = 6, 10
# Scores are compared in parts of this size, which bounds the size of temporaries.
_PART = 2**20
# Divisors are kept at least this large.
_TINY = 1e-300


def mark_largest(scores: Tensor, k: int) -> Tensor:
    """Replace the k largest scores by one and the others by zero, in place.

    With the magnitudes of theta as scores, ``theta * marks`` is the nearest point to theta with at
    most k non-zeros. Exactly min(k, N) entries are marked. Of equal scores the first ones are
    marked on a CPU, and any on a GPU, where Python does not wait for the device.

    Args:
        scores: non-negative, float32 ``[N]``; overwritten.
        k: the number of entries to mark, at least 0.

    Returns:
        ``scores``, which now holds the marks.

    Raises:
        ValueError: if k is negative.
    """
    if k < 0:
        raise ValueError(f"k is {k}: it must be at least 0")
    if k == 0 or k >= len(scores):
        return scores.fill_(k > 0)
    return (_mark_on_cpu if scores.device.type == "cpu" else mark_by_topk)(scores, k)


def mark_balanced(scores: Tensor, sizes: Sequence[int], k: int) -> Tensor:
    """Replace k of the scores by one and the others by zero, in place, balanced over the layers.

    The marked entries maximise the product, over the layers, of the sum of squares that a layer
    keeps. So the result does not depend on the scale of a layer, and every layer keeps at least one
    entry if k allows. The solution is the order of LAMP (Lee et al., "Layer-adaptive sparsity for
    the magnitude-based pruning", 2021): an entry's score there is its square divided by the sum of
    the squares of the layer's entries that are not smaller. The logarithm of a layer's sum is
    concave in the number of its largest entries that are kept, so taking the k highest scores over
    all layers is optimal.

    Zeros are never marked. Of the other entries exactly k are marked, or all if there are fewer.
    Ties are resolved as in ``mark_largest``.

    Args:
        scores: non-negative, float32 ``[N]``, the layers one after the other; overwritten.
        sizes: the number of entries of each layer; they add up to N.
        k: the number of entries to mark, at least 0.

    Returns:
        ``scores``, which now holds the marks.

    Raises:
        ValueError: if k is negative.
    """
    if k <= 0:
        return mark_largest(scores, k)
    balance = _balance_on_cpu if scores.device.type == "cpu" else balance_by_topk
    return balance(scores, sizes, k)


def mark_by_topk(scores: Tensor, k: int) -> Tensor:
    """As ``mark_largest`` for k above 0, by torch.topk, which is fast on a GPU (a radix select)."""
    drop = 2 * k > len(scores)  # the shorter list is the cheaper one
    count = len(scores) - k if drop else k
    listed = torch.topk(scores, count, largest=not drop, sorted=False).indices
    return scores.fill_(drop).index_fill_(0, listed, not drop)


def balance_by_topk(scores: Tensor, sizes: Sequence[int], k: int) -> Tensor:
    """As ``mark_balanced`` for k above 0, by torch.topk."""
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
    """Replace a layer's scores, in descending order, by their LAMP scores, in place."""
    squares = descending.double().square_()
    torch.div(squares, squares.cumsum(0).clamp_min_(_TINY), out=descending)


def _ordinals(scores: Tensor) -> Tensor:
    """The bits of non-negative floats, read as integers, which have the same order; a view."""
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
    """The k largest entries in no particular order, or all non-zero ones if those are fewer.

    A sample gives a value that the k largest entries are above, so only a few entries have to be
    copied and partitioned. (On a CPU numpy's partition is 12 times as fast as torch.kthvalue.)
    """
    sample = flat[::_STRIDE]
    rank = k / _STRIDE
    rank += _DEVIATIONS * math.sqrt(rank) + _EXTRA_RANKS
    least = np.partition(sample, -int(rank))[-int(rank)] if rank < len(sample) else 0
    if least > 0:
        largest = flat[flat >= least]
    if least == 0 or len(largest) < k:  # the sample can be wrong if the scores are periodic
        largest = flat[flat > 0]
    if len(largest) <= k:
        return largest
    largest.partition(len(largest) - k)
    return largest[-k:]
