"""TRADES: clean accuracy and stability traded off by a weight (Zhang et al., ICML 2019).

The loss is the clean images' cross-entropy plus beta times the Kullback-Leibler divergence of the
outputs on adversarial images from those on clean ones; the attack climbs that divergence.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from atmc_core.attacks.base import Attack, Model
from atmc_core.attacks.gradient import input_gradient
from atmc_core.attacks.norms import Ball
from atmc_core.training import StepLoss

# The divergence has no slope at the image itself, so the ascent starts this far off (authors').
_START = 1e-3


@dataclass(frozen=True)
class DivergencePGD(Attack):
    """Projected gradient ascent on the divergence of the outputs from those on the clean images.

    Attributes:
        ball: where perturbations stay.
        steps: number of gradient steps.
        step_size: length of each, in the ball's norm.
    """

    ball: Ball
    steps: int
    step_size: float

    def run(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        with torch.no_grad():
            clean = model(images).log_softmax(1)
        noise = torch.empty_like(images).normal_(generator=generator)
        points = (images + _START * noise).clamp_(0, 1)
        for _ in range(self.steps):
            gradient = input_gradient(
                model, points, labels, lambda logits, labels: divergence(logits, clean)
            )
            points = self.ball.ascend(points, gradient, self.step_size, images)
        return points


def divergence(logits: Tensor, clean: Tensor) -> Tensor:
    """Kullback-Leibler divergence from the clean log-probabilities, per image, ``[N]``."""
    adversarial = logits.log_softmax(1)
    return F.kl_div(adversarial, clean, reduction="none", log_target=True).sum(1)


@dataclass(frozen=True)
class TradesLoss(StepLoss):
    """The loss of a training step.

    Attributes:
        beta: weight of the divergence.
    """

    beta: float

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """A scalar, of logits ``[2N, classes]``, the clean images' first, and labels ``[N]``."""
        clean, adversarial = logits.chunk(2)
        distance = divergence(adversarial, clean.log_softmax(1)).mean()
        return F.cross_entropy(clean, labels) + self.beta * distance
