"""The balls that perturbations stay in: where to start, which way to step, how to come back."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Ball(Protocol):
    """A norm ball of a radius around each image, cut with [0, 1]."""

    @property
    def epsilon(self) -> float: ...

    def random(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """A random point of each image's ball."""

    def ascend(self, points: Tensor, gradient: Tensor, step_size: float, images: Tensor) -> Tensor:
        """One steepest-ascent step of length ``step_size``, projected back."""

    def size(self, perturbation: Tensor) -> Tensor:
        """The norm of each perturbation, ``[N]``."""


def ball(norm: str, epsilon: float) -> Ball:
    """The ball of a norm by name.

    Raises:
        ValueError: if the norm is unknown.
    """
    if norm == "linf":
        return LinfBall(epsilon)
    if norm == "l2":
        return L2Ball(epsilon)
    raise ValueError(f"norm is {norm!r}: it must be 'linf' or 'l2'")


@dataclass(frozen=True)
class LinfBall:
    """No pixel moves by more than epsilon."""

    epsilon: float

    def random(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        noise = torch.empty_like(images).uniform_(-self.epsilon, self.epsilon, generator=generator)
        return noise.add_(images).clamp_(0, 1)

    def ascend(self, points: Tensor, gradient: Tensor, step_size: float, images: Tensor) -> Tensor:
        lower, upper = (images - self.epsilon).clamp_(min=0), (images + self.epsilon).clamp_(max=1)
        moved = torch.add(points, gradient.sign(), alpha=step_size)
        return torch.clamp_(moved, lower, upper)

    def size(self, perturbation: Tensor) -> Tensor:
        return perturbation.flatten(1).abs().amax(1)


@dataclass(frozen=True)
class L2Ball:
    """The Euclidean length of an image's perturbation is at most epsilon."""

    epsilon: float

    def random(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        direction = torch.empty_like(images).normal_(generator=generator)
        # A uniform point of a d-ball lies at radius U^(1/d).
        radius = torch.rand(len(images), device=images.device, generator=generator)
        radius = self.epsilon * radius ** (1 / images[0].numel())
        return (images + direction * _per_image(radius / _length(direction), images)).clamp_(0, 1)

    def ascend(self, points: Tensor, gradient: Tensor, step_size: float, images: Tensor) -> Tensor:
        moved = points + gradient * _per_image(step_size / _length(gradient), images)
        offset = moved - images
        scale = (self.epsilon / _length(offset)).clamp_max(1)
        return (images + offset * _per_image(scale, images)).clamp_(0, 1)

    def size(self, perturbation: Tensor) -> Tensor:
        length: Tensor = torch.linalg.vector_norm(perturbation.flatten(1), dim=1)
        return length


def _length(batch: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(batch.flatten(1), dim=1)
    return length.clamp_min(1e-12)


def _per_image(values: Tensor, images: Tensor) -> Tensor:
    return values.view(-1, *[1] * (images.ndim - 1))
