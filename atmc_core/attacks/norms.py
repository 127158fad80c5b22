"""The balls that perturbations stay in: where to start, which way to step, how to come back."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from atmc_core.attacks.rows import Rows

Norm = Literal["linf", "l2"]


class Ball(Protocol):
    """A norm ball of a radius around each image, cut with [0, 1]."""

    @property
    def epsilon(self) -> float: ...

    @property
    def norm(self) -> Norm: ...

    def random(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """A random point of each image's ball."""

    def ascend(self, points: Tensor, gradient: Tensor, step_size: float, images: Tensor) -> Tensor:
        """One steepest-ascent step of length ``step_size``, projected back."""

    def size(self, perturbation: Tensor) -> Tensor:
        """The norm of each perturbation, ``[N]``."""

    def around(self, images: Tensor) -> "Region":
        """The ball around each image, for many steps there."""


class Region(Rows):
    """Balls around images, cut with [0, 1]; keeps what does not change from step to step."""

    @abstractmethod
    def surface(self, generator: torch.Generator | None) -> Tensor:
        """A random point of each ball's surface, cut with [0, 1]."""

    @abstractmethod
    def direction(self, gradient: Tensor) -> Tensor:
        """The steepest direction of length 1."""

    @abstractmethod
    def project(self, points: Tensor) -> Tensor:
        """The nearest points of the balls, then of [0, 1]; ``points`` may be overwritten."""


def ball(norm: str, epsilon: float) -> Ball:
    """The ball of a norm by name, for images in [0, 1].

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
    """No pixel moves by more than epsilon."""

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
    """The Euclidean length of an image's perturbation is at most epsilon."""

    epsilon: float

    @property
    def norm(self) -> Norm:
        return "l2"

    def random(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        direction = torch.empty_like(images).normal_(generator=generator)
        # A uniform point of a d-ball lies at radius U^(1/d).
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
        largest = noise.flatten(1).abs().amax(1).clamp_min_(1e-12)
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
    return length.clamp_min(1e-12)


def _per_image(values: Tensor, images: Tensor) -> Tensor:
    return values.view(-1, *[1] * (images.ndim - 1))
