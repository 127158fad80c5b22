"""FAB: walks along the decision boundary towards the nearest adversarial image.

Source: Croce & Hein, "Minimally distorted adversarial examples with a fast adaptive boundary
attack" (2020), algorithm 1; targeted as in Croce & Hein, "Reliable evaluation of adversarial
robustness" (2020), section 5.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from atmc_core.attacks.base import Found, Model, SearchAttack, require_positive
from atmc_core.attacks.hyperplane import to_hyperplane
from atmc_core.attacks.losses import target_margin
from atmc_core.attacks.norms import Ball
from atmc_core.attacks.rows import Rows
from atmc_core.attacks.targets import target_batches

# Steps count as at least this long when they are compared.
_SHORTEST = 1e-8


@dataclass(frozen=True)
class FABT(SearchAttack):
    """FAB towards each of the most likely other classes, from the image itself.

    An image is not attacked further once an adversarial point within the ball was found.

    Attributes:
        ball: the ball in which an adversarial point counts as found.
        targets: the largest number of target classes for each image; at most all but the true one.
        steps: the number of steps for each target.
        alpha_max: the largest weight, in [0, 1], of the step that starts from the image itself.
        eta: the factor by which a step goes past the linearised boundary; 1 ends on it.
        beta: the share of a perturbation that is kept for the next step once its point is
            adversarial.
        batch_size: the number of pairs of image and target that are attacked at a time.

    Raises:
        ValueError: if a number is not positive.
    """

    ball: Ball
    targets: int = field(default=9, kw_only=True)
    steps: int = field(default=100, kw_only=True)
    alpha_max: float = field(default=0.1, kw_only=True)
    eta: float = field(default=1.05, kw_only=True)
    beta: float = field(default=0.9, kw_only=True)
    batch_size: int = field(default=256, kw_only=True)

    def __post_init__(self) -> None:
        require_positive(
            targets=self.targets,
            steps=self.steps,
            alpha_max=self.alpha_max,
            eta=self.eta,
            beta=self.beta,
            batch_size=self.batch_size,
        )

    def search(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        logits: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Found:
        found = Found(images)
        for numbers, classes in target_batches(
            logits, labels, found, targets=self.targets, batch_size=self.batch_size
        ):
            chosen = images[numbers]
            walk = _Walk(chosen, chosen, numbers, labels[numbers], classes)
            for _ in range(self.steps):
                if not len(walk.points):
                    break
                walk = self._look(model, self._advance(model, walk), found)
        return found

    def _advance(self, model: Model, walk: "_Walk") -> "_Walk":
        """Step to the linearised boundary from the point and from the image, and average both."""
        margin, gradient = _linearise(model, walk)
        flat_points, flat_images = walk.points.flatten(1), walk.images.flatten(1)
        normals = gradient.flatten(1)
        image_margin = margin + (normals * (flat_images - flat_points)).sum(1)
        steps = to_hyperplane(
            torch.cat([flat_points, flat_images]),
            normals.repeat(2, 1),
            torch.cat([margin, image_margin]),
            self.ball.norm,
        )
        from_point, from_image = self.ball.size(steps).clamp_min_(_SHORTEST).chunk(2)
        share = (from_point / (from_point + from_image)).clamp_max_(self.alpha_max)[:, None]
        step_point, step_image = steps.mul_(self.eta).chunk(2)
        start = torch.lerp(step_point.add_(flat_points), step_image.add_(flat_images), share)
        walk.points = start.clamp_(0, 1).view_as(walk.images)
        return walk

    @torch.no_grad()
    def _look(self, model: Model, walk: "_Walk", found: Found) -> "_Walk":
        """Note the adversarial points within the ball; pull all others towards their images."""
        adversarial = model(walk.points).argmax(1) != walk.labels
        if not adversarial.any():
            return walk
        fallen = adversarial & (self.ball.size(walk.points - walk.images) <= self.ball.epsilon)
        keep = self.beta * adversarial + ~adversarial
        kept = torch.lerp(walk.images, walk.points, keep.to(walk.points).view(-1, 1, 1, 1))
        if fallen.any():
            found.record(walk.numbers[fallen], walk.points[fallen])
            walk.points = kept
            return walk.rows(~found.fooled[walk.numbers])
        walk.points = kept
        return walk


@dataclass
class _Walk(Rows):
    """Pairs of image and target, and the current point of each; row numbers in ``numbers``."""

    images: Tensor
    points: Tensor
    numbers: Tensor
    labels: Tensor
    targets: Tensor


def _linearise(model: Model, walk: _Walk) -> tuple[Tensor, Tensor]:
    """The target's margin over the true class at each point, ``[M]``, and the margin's gradient."""
    points = walk.points.detach().requires_grad_()
    with torch.enable_grad():
        margin = target_margin(model(points), walk.labels, walk.targets)
        (gradient,) = torch.autograd.grad(margin.sum(), points)
    return margin.detach(), gradient
