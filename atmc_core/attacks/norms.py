"""The balls that perturbations stay in: random starts, ascent directions, projections."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from atmc_core.attacks.rows import Rows

Norm = Literal["linf", "l2"]

# Divisors are kept at least this large.
_TINY = 1e-12
# Rounding may put a projected point outside its ball by this much: a share of the radius, and pixel
# values.
_RELATIVE_ROUNDING, _ABSOLUTE_ROUNDING = 1e-4, 1e-6


class Ball(Protocol):
    """A norm ball around each image, intersected with the box [0, 1].

    Images, points, gradients and perturbations are float ``[N, C, H, W]``.
    """

    @property
    def epsilon(self) -> float:
        """The radius, in pixel values of images in [0, 1]."""

    @property
    def norm(self) -> Norm:
        """The norm's name."""

    def random(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """A random point of each image's ball, ``[N, C, H, W]``."""

    def ascend(self, points: Tensor, gradient: Tensor, step_size: float, images: Tensor) -> Tensor:
        """Take one step of steepest ascent from ``points`` and project it back into the ball.

        Args:
            points: the current points, in [0, 1].
            gradient: the gradient of what is climbed, at the points.
            step_size: the length of the step, in the ball's norm.
            images: the centres of the balls, in [0, 1].

        Returns:
            The new points, ``[N, C, H, W]``.
        """

    def size(self, perturbation: Tensor) -> Tensor:
        """The norm of each perturbation, in pixel values, ``[N]``."""

    def around(self, images: Tensor) -> "Region":
        """The balls around these images, prepared for many steps."""


class Region(Rows):
    """Balls around given images, intersected with [0, 1].

    It computes once what does not change from step to step. Points and gradients are float
    ``[N, C, H, W]``, one for each image.
    """

    @abstractmethod
    def surface(self, generator: torch.Generator | None) -> Tensor:
        """A random point of each ball's surface, clamped to [0, 1]."""

    @abstractmethod
    def direction(self, gradient: Tensor) -> Tensor:
        """The direction of steepest ascent, of length 1 in the ball's norm."""

    @abstractmethod
    def project(self, points: Tensor) -> Tensor:
        """The nearest points of the balls, clamped to [0, 1]; ``points`` may be overwritten."""


def is_within(ball: Ball, sizes: Tensor) -> Tensor:
    """Whether perturbations of these sizes are inside the ball, up to rounding, bool ``[N]``.

    Args:
        ball: the ball.
        sizes: the norms of the perturbations, as ``Ball.size`` returns them, ``[N]``.
    """
    return sizes <= with_rounding(ball.epsilon)


def with_rounding(epsilon: float) -> float:
    """The largest size of a perturbation that counts as inside a ball of this radius."""
    return epsilon * (1 + _RELATIVE_ROUNDING) + _ABSOLUTE_ROUNDING


def ball(norm: str, epsilon: float) -> Ball:
    """The ball of a norm by name, for images in [0, 1].

    Args:
        norm: ``linf`` or ``l2``.
        epsilon: the radius, in pixel values.

    Raises:
        ValueError: if the norm is unknown, or epsilon not above 0, or (linf) above 1.
    """
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise ValueError(f"epsilon is {epsilon}: it must be above 0")
    if norm == "linf" and epsilon > 1:
        raise ValueError(
            f"epsilon is {epsilon}: it must be at most 1, as images are in [0, 1]; for "
            f"{epsilon:g} grey levels write {epsilon:g}/255"
        )
    if norm == "linf":
        return LinfBall(epsilon)
    if norm == "l2":
        return L2Ball(epsilon)
    raise ValueError(f"norm is {norm!r}: it must be 'linf' or 'l2'")


@dataclass(frozen=True)
class LinfBall:
    """The ball in which no pixel value changes by more than epsilon."""

    epsilon: float

    @property
    def norm(self) -> Norm:
        return "linf"

    def random(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        noise = torch.empty_like(images).uniform_(-self.epsilon, self.epsilon, generator=generator)
        return noise.add_(images).clamp_(0, 1)

    def ascend(self, points: Tensor, gradient: Tensor, step_size: float, images: Tensor) -> Tensor:
        lower, upper = (images - self.epsilon).clamp_(min=0), (images + self.epsilon).clamp_(max=1)
        moved = torch.add(points, gradient.sign(), alpha=step_size)
        return torch.clamp_(moved, lower, upper)

    def size(self, perturbation: Tensor) -> Tensor:
        return perturbation.flatten(1).abs().amax(1)

    def around(self, images: Tensor) -> Region:
        lower, upper = (images - self.epsilon).clamp_(min=0), (images + self.epsilon).clamp_(max=1)
        return _LinfRegion(images, lower, upper, self.epsilon)


@dataclass(frozen=True)
class L2Ball:
    """The ball in which the Euclidean length of a perturbation is at most epsilon."""

    epsilon: float

    @property
    def norm(self) -> Norm:
        return "l2"

    def random(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        direction = torch.empty_like(images).normal_(generator=generator)
        # A uniformly distributed point of a d-dimensional ball has the radius U^(1/d).
        radius = torch.rand(len(images), device=images.device, generator=generator)
        radius = self.epsilon * radius ** (1 / images[0].numel())
        return (images + direction * _per_image(radius / _length(direction), images)).clamp_(0, 1)

    def ascend(self, points: Tensor, gradient: Tensor, step_size: float, images: Tensor) -> Tensor:
        moved = points + gradient * _per_image(step_size / _length(gradient), images)
        return _into_l2(moved, images, self.epsilon)

    def size(self, perturbation: Tensor) -> Tensor:
        length: Tensor = torch.linalg.vector_norm(perturbation.flatten(1), dim=1)
        return length

    def around(self, images: Tensor) -> Region:
        return _L2Region(images, self.epsilon)


@dataclass
class _LinfRegion(Region):
    images: Tensor
    lower: Tensor
    upper: Tensor
    epsilon: float

    def surface(self, generator: torch.Generator | None) -> Tensor:
        noise = torch.empty_like(self.images).uniform_(-1, 1, generator=generator)
        largest = noise.flatten(1).abs().amax(1).clamp_min_(_TINY)
        noise.mul_(_per_image(self.epsilon / largest, noise))
        return self.project(noise.add_(self.images))

    def direction(self, gradient: Tensor) -> Tensor:
        return gradient.sign()

    def project(self, points: Tensor) -> Tensor:
        return torch.clamp_(points, self.lower, self.upper)


@dataclass
class _L2Region(Region):
    images: Tensor
    epsilon: float

    def surface(self, generator: torch.Generator | None) -> Tensor:
        noise = torch.empty_like(self.images).normal_(generator=generator)
        noise.mul_(_per_image(self.epsilon / _length(noise), noise))
        return noise.add_(self.images).clamp_(0, 1)

    def direction(self, gradient: Tensor) -> Tensor:
        return gradient / _per_image(_length(gradient), gradient)

    def project(self, points: Tensor) -> Tensor:
        return _into_l2(points, self.images, self.epsilon)


def _into_l2(points: Tensor, images: Tensor, epsilon: float) -> Tensor:
    offset = points - images
    scale = (epsilon / _length(offset)).clamp_max(1)
    return (images + offset * _per_image(scale, images)).clamp_(0, 1)


def _length(batch: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(batch.flatten(1), dim=1)
    return length.clamp_min(_TINY)


def _per_image(values: Tensor, images: Tensor) -> Tensor:
    return values.view(-1, *[1] * (images.ndim - 1))
