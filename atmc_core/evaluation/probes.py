"""Cheap figures that show whether a model's robust accuracy can be believed.

Sources: Carlini et al., "On Evaluating Adversarial Robustness" (2019), and the checks that come
with AutoAttack (Croce and Hein, 2020).
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from atmc_core.attacks.base import Model

#: A loss gradient vanishes if none of its entries is above this: gradient attacks cannot climb it.
VANISHING = 1e-10
# Outputs are taken for probabilities if they are not negative and add up to 1 within this.
_SUM_TOLERANCE = 1e-3


def probe(
    model: Model, images: Tensor, labels: Tensor, right: Tensor, *, attacked: Model | None = None
) -> dict[str, Any]:
    """Compute the figures of a model on some images.

    Args:
        model: maps images to logits ``[N, classes]``; differentiable in its input.
        images: float ``[N, C, H, W]`` in [0, 1].
        labels: the true classes, int64 ``[N]``.
        right: whether the model classifies each image correctly, bool ``[N]`` on the CPU.
        attacked: the model as the attacks see it, with logits of another scale; by default the
            model itself.

    Returns:
        A dictionary with

        - ``images``, the number of images, and ``right``, how many of them are right;
        - ``vanishing``, how many of the right ones have a loss gradient that vanishes (see
          ``VANISHING``);
        - ``output_change``, the largest difference between the outputs of two equal runs, relative
          to the largest output;
        - ``softmax``, whether all outputs are probabilities.
    """
    with torch.no_grad():
        first, second = model(images), model(images)
    change = (first - second).abs().max() / first.abs().max().clamp_min(1e-12)
    gradient = _loss_gradient(attacked or model, images, labels).flatten(1).abs().amax(1).cpu()
    sums = first.sum(1)
    return {
        "images": len(images),
        "right": int(right.sum()),
        "vanishing": int((gradient[right] <= VANISHING).sum()),
        "output_change": float(change),
        "softmax": bool((first >= 0).all() and (sums - 1).abs().max() < _SUM_TOLERANCE),
    }


def _loss_gradient(model: Model, images: Tensor, labels: Tensor) -> Tensor:
    points = images.detach().requires_grad_()
    with torch.enable_grad():
        loss = F.cross_entropy(model(points), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, points)
    return gradient
