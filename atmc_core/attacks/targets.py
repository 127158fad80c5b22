"""Targeted attacks: which class to aim at for which image, in full batches."""

from collections.abc import Iterator

import torch
from torch import Tensor

from atmc_core.attacks.base import Found


def target_batches(
    logits: Tensor, labels: Tensor, found: Found, *, targets: int, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of image number and target class, at most ``batch_size`` at a time, ``[M]`` each.

    Targets are the most likely classes but the true one, at most as many as there are. All images'
    first targets come first, then all second ones: most images that fall do so at the first, and
    batches stay full as they fall. Pairs of images that ``found`` says are fooled are left out.
    """
    count = min(targets, logits.shape[1] - 1)
    others = logits.scatter(1, labels[:, None], -torch.inf)
    classes = others.argsort(1, descending=True)[:, :count].T.flatten()
    numbers = torch.arange(len(labels), device=labels.device).repeat(count)
    while True:
        standing = ~found.fooled[numbers]
        numbers, classes = numbers[standing], classes[standing]
        if not len(numbers):
            return
        yield numbers[:batch_size], classes[:batch_size]
        numbers, classes = numbers[batch_size:], classes[batch_size:]
