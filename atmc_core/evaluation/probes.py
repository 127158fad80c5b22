"""What a few passes tell about whether a model's robust accuracy can be believed.

After Carlini et al., "On Evaluating Adversarial Robustness" (2019), and the checks that come with
AutoAttack (Croce and Hein, 2020).
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from atmc_core.attacks.base import Model

#: An image whose loss gradient has no entry above this gives gradient attacks nothing to climb.
VANISHING = 1e-10


def probe(model: Model, images: Tensor, labels: Tensor, right: Tensor) -> dict[str, Any]:
    """Plain figures of a model on some images.

    Args:
        images: ``[N, C, H, W]`` in [0, 1].
        right: which of them the model gets right, bool ``[N]``.

    Returns:
        ``images`` and ``right``, counts; ``vanishing``, how many of the right ones have a loss
        gradient of at most ``VANISHING``; ``output_change``, the largest difference between the
        outputs of two equal runs, relative to the largest output; ``softmax``, whether all outputs
        are probabilities.
    """
    with torch.no_grad():
        first, second = model(images), model(images)
    change = (first - second).abs().max() / first.abs().max().clamp_min(1e-12)
    gradient = _loss_gradient(model, images, labels).flatten(1).abs().amax(1).cpu()
    sums = first.sum(1)
    return {
        "images": len(images),
        "right": int(right.sum()),
        "vanishing": int((gradient[right] <= VANISHING).sum()),
        "output_change": float(change),
        "softmax": bool((first >= 0).all() and (sums - 1).abs().max() < 1e-3),
    }


def _loss_gradient(model: Model, images: Tensor, labels: Tensor) -> Tensor:
    points = images.detach().requires_grad_()
    with torch.enable_grad():
        loss = F.cross_entropy(model(points), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, points)
    return gradient
