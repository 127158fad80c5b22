"""Attacks that climb the loss: FGSM (Goodfellow et al., 2015) and PGD (Madry et al., 2018)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from atmc_core.attacks.base import Attack, Model, require_positive
from atmc_core.attacks.losses import Loss, cross_entropy, loss_named
from atmc_core.attacks.norms import Ball


def input_gradient(
    model: Model, images: Tensor, labels: Tensor, loss: Loss = cross_entropy
) -> Tensor:
    """Gradient of the summed loss in the images, ``[N, C, H, W]``."""
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        total = loss(model(images), labels).sum()
        (gradient,) = torch.autograd.grad(total, images)
    return gradient


@dataclass(frozen=True)
class PGD(Attack):
    """Projected gradient ascent.

    Attributes:
        ball: where perturbations stay.
        steps: number of gradient steps.
        step_size: length of each, in the ball's norm.
        random_start: start at a random point of the ball, else at the image itself.
        loss: what is climbed: "ce" (cross-entropy), "cw" (margin of the logits) or "dlr"; see
            ``atmc_core.attacks.losses``.

    Raises:
        ValueError: if a number is not positive, there is no such loss, or ``run`` gets no images.
        FloatingPointError: if the model's gradient is not finite at the first step.
    """

    ball: Ball
    steps: int
    step_size: float
    random_start: bool = True
    loss: str = "ce"

    def __post_init__(self) -> None:
        require_positive(steps=self.steps, step_size=self.step_size)
        loss_named(self.loss)

    def run(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        loss = loss_named(self.loss)
        if not len(images):
            raise ValueError("there are no images to attack")
        points = self.ball.random(images, generator) if self.random_start else images
        for step in range(self.steps):
            gradient = input_gradient(model, points, labels, loss)
            if step == 0 and not torch.isfinite(gradient).all():
                raise FloatingPointError("the model returns NaN or infinite outputs or gradients")
            points = self.ball.ascend(points, gradient, self.step_size, images)
        return points


class FGSM(PGD):
    """One step of the full radius from the image itself."""

    def __init__(self, ball: Ball) -> None:
        super().__init__(ball, steps=1, step_size=ball.epsilon, random_start=False)
