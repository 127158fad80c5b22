"""The joint l0 constraint: one budget of non-zeros over many tensors, seen as one."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

# Every so many-th score is looked at first, to leave out most of the others (a prime, so that it
# does not fall into step with rows and columns).
_STRIDE = 61
# Ties are counted in so many scores at a time: temporaries are of this size.
_PART = 2**20


def mark_largest(scores: Tensor, k: int) -> Tensor:
    """Replace the k largest scores by one and the others by zero, in place.

    With the magnitudes as scores, ``theta * marks`` is the nearest point with at most k non-zeros.
    Exactly min(k, N) entries are marked: of equal scores the first ones. On a GPU nothing waits for
    the device.

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
    ordinals = _ordinals(scores)
    select = by_partition if ordinals.device.type == "cpu" else by_topk
    _mark(scores, *select(ordinals, k))
    return scores


def mark_balanced(scores: Tensor, sizes: Sequence[int], k: int) -> Tensor:
    """Replace k of the scores by one and the others by zero, in place, so that no layer starves.

    The product over the layers of what is kept of their squares is the largest that k entries can
    have, so it makes no difference in what units a layer is. That is the order of LAMP (Lee et al.,
    "Layer-adaptive sparsity for the magnitude-based pruning", 2021): an entry's square over the sum
    of its own and all larger ones of its layer. The logarithm of a layer's sum is concave in how
    many of its largest are in it, so taking the k best of all is optimal. Each layer keeps one,
    while k allows. Zeros are never marked, and of others exactly k, or all; of equal ones the
    first. On a GPU nothing waits for the device.

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
    layers = torch.split(scores, list(sizes))
    largest = [_descending(layer, min(k, len(layer))) for layer in layers]
    counts = [len(own) for own in largest]
    order = scores.new_empty(sum(counts))
    for own, part in zip(largest, torch.split(order, counts), strict=True):
        part.copy_(_lamp(own))
    marks = torch.split(mark_largest(order, k), counts)
    for layer, own, marked in zip(layers, largest, marks, strict=True):
        kept = (marked * (own > 0)).sum(dtype=torch.int64)
        # Behind the last one an infinity, for a layer that keeps none: nothing is above it.
        threshold = F.pad(own, (0, 1), value=math.inf).take(kept - 1)
        above = (own > threshold).sum()
        _mark(layer, _ordinals(threshold), kept - above)
    return scores


def _lamp(descending: Tensor) -> Tensor:
    """Squares over the sums of all up to theirs; summed in float64, since there are millions."""
    squares = descending.double().square_()
    return squares.div_(squares.cumsum(0).clamp_min_(1e-300))


def _descending(scores: Tensor, k: int) -> Tensor:
    """The k largest, the largest first."""
    if scores.device.type != "cpu":
        return torch.topk(scores, k).values
    flat = _largest(_ordinals(scores).numpy(), k)
    flat.sort()
    return torch.from_numpy(flat[::-1].copy()).view(torch.float32)


def _ordinals(scores: Tensor) -> Tensor:
    """Non-negative floats are ordered as the integers that their bits are."""
    return scores.detach().view(torch.int32)


def _mark(scores: Tensor, threshold: Tensor, remaining: Tensor | int) -> None:
    """Ones above the threshold (an ordinal) and at so many of those at it, zeros elsewhere."""
    ordinals = _ordinals(scores)
    for part, marks in zip(torch.split(ordinals, _PART), torch.split(scores, _PART), strict=True):
        ties = part == threshold
        rank = ties.cumsum(0, dtype=torch.int32)
        marks.copy_((part > threshold) | (ties & (rank <= remaining)))
        remaining = remaining - rank[-1]


def by_partition(ordinals: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k-th largest, and how many entries equal to it are among the k, on a CPU."""
    kept = torch.from_numpy(_largest(ordinals.numpy(), k))
    if len(kept) < k:
        return ordinals.new_zeros(()), torch.tensor(k - len(kept))
    threshold = kept.min()
    return threshold, k - (kept > threshold).sum()


def _largest(flat: NDArray[np.int32], k: int) -> NDArray[np.int32]:
    """The k largest in no order, or all that are not zero if those are fewer.

    A sample tells a value that the k largest are above, so only few are copied and partitioned.
    (numpy's partition is the fastest there is on a CPU: 12 times as fast as torch.kthvalue.)
    """
    sample = flat[::_STRIDE]
    rank = k / _STRIDE
    rank += 6 * math.sqrt(rank) + 10  # so far off is no sample in a life
    least = np.partition(sample, -int(rank))[-int(rank)] if rank < len(sample) else 0
    largest = flat[flat >= max(least, 1)]
    if len(largest) < k:  # scores that repeat every so many do fool a sample
        largest = flat[flat > 0]
    if len(largest) <= k:
        return largest
    largest.partition(len(largest) - k)
    return largest[-k:]


def by_topk(ordinals: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The same where torch.topk selects by radix and nothing waits for the device: on a GPU."""
    largest = torch.topk(ordinals, k, sorted=False).values
    threshold = largest.min()
    return threshold, k - (largest > threshold).sum()
