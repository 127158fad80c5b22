"""Attacks that climb the loss: FGSM (Goodfellow et al., 2015) and PGD (Madry et al., 2018)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from atmc_core.attacks.base import Attack, Model
from atmc_core.attacks.norms import Ball


def input_gradient(model: Model, images: Tensor, labels: Tensor) -> Tensor:
    """Gradient of the summed cross-entropy in the images, ``[N, C, H, W]``."""
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        loss = F.cross_entropy(model(images), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, images)
    return gradient


@dataclass(frozen=True)
class PGD(Attack):
    """Projected gradient ascent on the cross-entropy.

    Attributes:
        ball: where perturbations stay.
        steps: number of gradient steps.
        step_size: length of each, in the ball's norm.
        random_start: start at a random point of the ball, else at the image itself.

    Raises:
        ValueError: if a number is not positive.
    """

    ball: Ball
    steps: int
    step_size: float
    random_start: bool = True

    def __post_init__(self) -> None:
        for name, value in (("steps", self.steps), ("step_size", self.step_size)):
            if not value > 0:
                raise ValueError(f"{name} is {value}: it must be above 0")

    def run(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        points = self.ball.random(images, generator) if self.random_start else images
        for _ in range(self.steps):
            gradient = input_gradient(model, points, labels)
            points = self.ball.ascend(points, gradient, self.step_size, images)
        return points


class FGSM(PGD):
    """One step of the full radius from the image itself."""

    def __init__(self, ball: Ball) -> None:
        super().__init__(ball, steps=1, step_size=ball.epsilon, random_start=False)
