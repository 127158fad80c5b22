"""Brings logits of an unusual scale to a usual one, for the attacks.

A factor on all logits changes no decision, but the gradients of the cross-entropy: of huge logits
they vanish, and of tiny ones they point to the mean of the other classes rather than to the next
one. Either way an attack that climbs it finds less, and the robust accuracy seems better than it
is. Logits of a usual scale are left as they are, so that figures compare with published ones.
"""

import math

import torch
from torch import Tensor

from atmc_core.attacks.base import Model

# The usual range of the median margin (see ``scale_exponent``), and the margin that one beyond it
# is brought to: PGD finds the most there on the networks of docs/notes/results.md.
_LEAST, _MOST, _WANTED = 0.25, 64.0, 8.0
# The scale is told if a model is right on this share of the images beyond chance. One that has
# learned nothing has small logits because it knows nothing.
_LEARNED = 0.25


@torch.no_grad()
def scale_exponent(model: Model, images: Tensor, labels: Tensor) -> int:
    """The power of two that brings a model's logits to a usual scale.

    The scale is told by the median, over the images that the model classifies correctly, of the
    largest logit minus the second largest one.

    Args:
        model: maps images to logits ``[N, classes]``.
        images: float ``[N, C, H, W]`` in [0, 1].
        labels: the true classes, int64 ``[N]``.

    Returns:
        The exponent; 0 if the scale is usual, or cannot be told: the model is not much better than
        chance, or its logits are equal or not finite.
    """
    logits = model(images)
    if logits.ndim != 2 or logits.shape[1] < 2 or not torch.isfinite(logits).all():
        return 0
    right, chance = logits.argmax(1) == labels, 1 / logits.shape[1]
    if float(right.float().mean()) < chance + _LEARNED * (1 - chance):
        return 0
    top = logits[right].double().topk(2, dim=1).values
    margin = float((top[:, 0] - top[:, 1]).median())
    if margin == 0 or _LEAST <= margin <= _MOST:
        return 0
    return round(math.log2(_WANTED / margin))


def scaled(model: Model, exponent: int) -> Model:
    """The model with its logits times two to the power ``exponent``, which rounds nothing."""
    if exponent == 0:
        return model
    factor = 2.0**exponent
    return lambda images: model(images) * factor
