"""The joint l0 constraint: one budget of non-zeros over many tensors."""

from collections.abc import Sequence

import torch
from torch import Tensor


def keep_largest(scores: Sequence[Tensor], k: int) -> list[Tensor]:
    """Masks of the k largest scores over all tensors together.

    With the magnitudes as scores, ``theta * mask`` is the nearest point with at most k non-zeros.
    Exactly min(k, total) entries are kept: of equal scores the first ones. Nothing waits for the
    device.

    Args:
        scores: non-negative tensors of any shapes, on one device.
        k: number of entries to keep, at least 0.

    Returns:
        Boolean tensors of the same shapes.

    Raises:
        ValueError: if k is negative.
    """
    if k < 0:
        raise ValueError(f"k is {k}: it must be at least 0")
    flat = torch.cat([score.reshape(-1) for score in scores])
    if k >= flat.numel():
        return [torch.ones_like(score, dtype=torch.bool) for score in scores]
    if k == 0:
        return [torch.zeros_like(score, dtype=torch.bool) for score in scores]
    threshold = torch.kthvalue(flat, flat.numel() - k + 1).values
    kept = flat > threshold
    ties = flat == threshold
    kept |= ties & (ties.cumsum(0) <= k - kept.sum())
    sizes = [score.numel() for score in scores]
    return [
        part.view(score.shape) for part, score in zip(torch.split(kept, sizes), scores, strict=True)
    ]
