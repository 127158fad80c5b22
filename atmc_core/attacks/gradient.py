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
        if not len(images):
            raise ValueError("there are no images to attack")
        return self.run_from(self.start(images, generator), model, images, labels)

    def run_from(self, points: Tensor, model: Model, images: Tensor, labels: Tensor) -> Tensor:
        """As ``run``, from these points.

        Raises:
            FloatingPointError: if the model's gradients there are not finite.
        """
        loss = self.objective(model, images)
        gradient = input_gradient(model, points, labels, loss)
        if not torch.isfinite(gradient).all():
            raise FloatingPointError("the model returns NaN or infinite outputs or gradients")
        points = self.ball.ascend(points, gradient, self.step_size, images)
        return self.climb(model, points, images, labels, loss, self.steps - 1)

    def start(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """Where the ascent starts, ``[N, C, H, W]``."""
        return self.ball.random(images, generator) if self.random_start else images

    def objective(self, model: Model, images: Tensor) -> Loss:
        """What is climbed from the images."""
        return loss_named(self.loss)

    def climb(
        self, model: Model, points: Tensor, images: Tensor, labels: Tensor, loss: Loss, steps: int
    ) -> Tensor:
        """So many steps on from ``points``; looks at no value, so nothing waits for the device."""
        for _ in range(steps):
            gradient = input_gradient(model, points, labels, loss)
            points = self.ball.ascend(points, gradient, self.step_size, images)
        return points


class FGSM(PGD):
    """One step of the full radius from the image itself."""

    def __init__(self, ball: Ball) -> None:
        super().__init__(ball, steps=1, step_size=ball.epsilon, random_start=False)
