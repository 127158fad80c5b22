"""WRM, an attack without a ball: the length of a perturbation is penalised instead."""

from dataclasses import dataclass

import torch
from torch import Tensor

from atmc_core.attacks.base import Attack, Model, require_positive
from atmc_core.attacks.gradient import input_gradient


@dataclass(frozen=True, kw_only=True)
class WRM(Attack):
    """Gradient ascent on ``gamma * cross-entropy - 0.5 * ||x' - x||_2^2`` from the image itself.

    The result is clamped to [0, 1] but to no ball, so report the sizes of its perturbations, too.

    Source: Sinha, Namkoong & Duchi, "Certifying Some Distributional Robustness with Principled
    Adversarial Training" (2018), equation 2b and algorithm 1. The 15 steps are those of its
    authors' code; gamma and the step size 1/sqrt(t + 1) are those of the ATMC paper.

    Attributes:
        gamma: the weight of the loss against half the squared length.
        steps: the number of gradient steps.

    Raises:
        ValueError: if a number is not positive.
    """

    gamma: float = 1.3
    steps: int = 15

    def __post_init__(self) -> None:
        require_positive(gamma=self.gamma, steps=self.steps)

    def run(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        points = images
        for step in range(self.steps):
            slope = self.gamma * input_gradient(model, points, labels) - (points - images)
            points = points.add(slope, alpha=(step + 1) ** -0.5).clamp_(0, 1)
        return points
