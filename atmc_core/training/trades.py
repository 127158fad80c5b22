"""TRADES: a trade-off between clean accuracy and stable outputs (Zhang et al., ICML 2019).

The loss is the cross-entropy on clean images plus beta times the Kullback-Leibler divergence of the
outputs on adversarial images from the outputs on clean ones. The attack climbs that divergence.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from atmc_core.attacks import PGD
from atmc_core.attacks.base import Model
from atmc_core.attacks.losses import Loss
from atmc_core.training.step import StepLoss

# The gradient of the divergence is zero at the image itself, so the ascent starts from the image
# plus normal noise of this standard deviation, in pixel values (as in the authors' code).
_START_NOISE = 1e-3


class DivergencePGD(PGD):
    """Projected gradient ascent on the divergence of the outputs from those on the clean images."""

    def start(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        noise = torch.empty_like(images).normal_(generator=generator)
        return (images + _START_NOISE * noise).clamp_(0, 1)

    def objective(self, model: Model, images: Tensor) -> Loss:
        with torch.no_grad():
            clean = model(images).log_softmax(1)
        return lambda logits, labels: divergence(logits, clean)


def divergence(logits: Tensor, clean: Tensor) -> Tensor:
    """The Kullback-Leibler divergence of adversarial from clean outputs, for each image, ``[N]``.

    Args:
        logits: the outputs on adversarial images, ``[N, classes]``.
        clean: the log-probabilities on clean images, ``[N, classes]``.
    """
    adversarial = logits.log_softmax(1)
    return F.kl_div(adversarial, clean, reduction="none", log_target=True).sum(1)


@dataclass(frozen=True)
class TradesLoss(StepLoss):
    """The loss of a training step by TRADES.

    Attributes:
        beta: the weight of the divergence.
    """

    beta: float

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        clean, adversarial = logits.chunk(2)
        distance = divergence(adversarial, clean.log_softmax(1)).mean()
        return F.cross_entropy(clean, labels) + self.beta * distance
