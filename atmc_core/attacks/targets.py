"""The target classes of targeted attacks, in full batches of pairs of image and target."""

from collections.abc import Iterator

import torch
from torch import Tensor

from atmc_core.attacks.base import Found


def target_batches(
    logits: Tensor, labels: Tensor, found: Found, *, targets: int, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield pairs of image and target class, batch by batch.

    An image's targets are its most likely classes but the true one. The first targets of all images
    come first, then all second ones, and so on: most images that fall do so at their first target,
    and this way the batches stay full. Images that have fallen by then, according to ``found``, are
    left out.

    Args:
        logits: the model's outputs on the images, ``[N, classes]``.
        labels: the true classes, int64 ``[N]``.
        found: what the attack has found so far; it is read before each batch.
        targets: the largest number of targets for each image.
        batch_size: the largest number of pairs in a batch.

    Yields:
        The images' row numbers and the target classes, int64 ``[M]`` each.
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
