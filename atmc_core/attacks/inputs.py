"""What attacks and proofs take: images in [0, 1], and the classes that they show."""

import torch
from torch import Tensor


def check_images(images: Tensor) -> None:
    """Check a batch of images.

    Args:
        images: float ``[N, C, H, W]`` in [0, 1], at least one.

    Raises:
        ValueError: if they are not that. What is not a number is in no range, either.
    """
    if images.ndim != 4 or not images.numel() or not images.is_floating_point():
        raise ValueError(f"images are {images.dtype} {list(images.shape)}: give float [N, C, H, W]")
    if not (images.amin() >= 0 and images.amax() <= 1):
        raise ValueError("images must be in [0, 1]: leave their normalisation to the network")


def check_labels(labels: Tensor, images: Tensor) -> None:
    """Check that there is a class for each image.

    Args:
        labels: the true classes, int64 ``[N]``.
        images: as ``check_images`` lets pass.

    Raises:
        ValueError: if they are not that.
    """
    if labels.shape != images.shape[:1]:
        raise ValueError(f"{list(labels.shape)} labels for {len(images)} images")
    if labels.dtype != torch.int64:
        raise ValueError(f"labels are {labels.dtype}: give the numbers of classes as int64")


def check_logits(logits: object, labels: Tensor) -> None:
    """Check that a network returns logits, and has the classes of some labels.

    Args:
        logits: what it returns.
        labels: as ``check_labels`` lets pass.

    Raises:
        ValueError: if it returns something else than logits ``[N, classes]`` of at least two
            classes, or a label is none of them.
    """
    if not isinstance(logits, Tensor):
        raise ValueError(f"the network returns a {type(logits).__name__}, not logits [N, classes]")
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(f"the network returns {list(logits.shape)}, not logits [N, classes]")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= logits.shape[1]:
        raise ValueError(
            f"labels are from {low} to {high}: the network has {logits.shape[1]} classes"
        )
