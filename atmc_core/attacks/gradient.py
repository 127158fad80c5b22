"""Attacks that climb the loss: FGSM (Goodfellow et al., 2015) and PGD (Madry et al., 2018)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from atmc_core.attacks.base import Attack, Model, require_positive
from atmc_core.attacks.losses import Loss, cross_entropy, loss_named
from atmc_core.attacks.norms import Ball
from atmc_core.attacks.smooth import smoothed


def input_gradient(
    model: Model, images: Tensor, labels: Tensor, loss: Loss = cross_entropy
) -> Tensor:
    """The gradient of the summed loss in the images, ``[N, C, H, W]``.

    Args:
        model: maps images to logits ``[N, classes]``; differentiable in its input.
        images: float ``[N, C, H, W]`` in [0, 1].
        labels: the true classes, int64 ``[N]``.
        loss: maps logits and labels to a loss per image.
    """
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        total = loss(model(images), labels).sum()
        (gradient,) = torch.autograd.grad(total, images)
    return gradient


@dataclass(frozen=True)
class PGD(Attack):
    """Projected gradient ascent (Madry et al., 2018).

    Attributes:
        ball: the ball that the perturbations stay in.
        steps: the number of gradient steps.
        step_size: the length of each step, in the ball's norm, in pixel values.
        random_start: whether to start at a random point of the ball, or at the image itself.
        loss: what is climbed: "ce" (cross-entropy), "cw" (margin of the logits) or "dlr"
            (difference of logits ratio); see ``atmc_core.attacks.losses``.
        temperature: that of smooth backward passes (see ``smooth.smoothed``); None climbs the
            model's own gradients.

    Raises:
        ValueError: if a number is not positive, there is no such loss, or ``run`` gets no images.
        FloatingPointError: if the model's gradient is not finite at the first step.
    """

    ball: Ball
    steps: int
    step_size: float
    random_start: bool = True
    loss: str = "ce"
    temperature: float | None = None

    def __post_init__(self) -> None:
        require_positive(steps=self.steps, step_size=self.step_size)
        if self.temperature is not None:
            require_positive(temperature=self.temperature)
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
        """Run the attack from given points.

        Args:
            points: the points to start from, ``[N, C, H, W]``, within the balls.
            model: as in ``run``.
            images: as in ``run``.
            labels: as in ``run``.

        Returns:
            The perturbed images, ``[N, C, H, W]`` in [0, 1].

        Raises:
            FloatingPointError: if the model's gradients at the points are not finite.
        """
        loss = self.objective(model, images)
        gradient = input_gradient(self.seen(model), points, labels, loss)
        if not torch.isfinite(gradient).all():
            raise FloatingPointError("the model returns NaN or infinite outputs or gradients")
        points = self.ball.ascend(points, gradient, self.step_size, images)
        return self.climb(model, points, images, labels, loss, self.steps - 1)

    def start(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """The points where the ascent from ``images`` starts, ``[N, C, H, W]``."""
        return self.ball.random(images, generator) if self.random_start else images

    def seen(self, model: Model) -> Model:
        """The model whose gradients are climbed: the same function as ``model``."""
        return model if self.temperature is None else smoothed(model, self.temperature)

    def objective(self, model: Model, images: Tensor) -> Loss:
        """The loss that is climbed from ``images``, ``[N, C, H, W]``."""
        return loss_named(self.loss)

    def climb(
        self, model: Model, points: Tensor, images: Tensor, labels: Tensor, loss: Loss, steps: int
    ) -> Tensor:
        """Take ``steps`` steps from ``points``.

        This method never looks at a value, so Python does not wait for the device and the steps can
        be recorded as a CUDA graph.

        Args:
            points: the points to start from, ``[N, C, H, W]``, within the balls.
            model: as in ``run``.
            images: as in ``run``.
            labels: as in ``run``.
            loss: what is climbed.
            steps: the number of gradient steps.

        Returns:
            The new points, ``[N, C, H, W]`` in [0, 1].
        """
        model = self.seen(model)
        for _ in range(steps):
            gradient = input_gradient(model, points, labels, loss)
            points = self.ball.ascend(points, gradient, self.step_size, images)
        return points


class FGSM(PGD):
    """One step, as long as the ball's radius, from the image itself (Goodfellow et al., 2015)."""

    def __init__(self, ball: Ball) -> None:
        super().__init__(ball, steps=1, step_size=ball.epsilon, random_start=False)
