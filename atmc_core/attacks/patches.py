"""What the Square attack proposes: how a window of a perturbation is redrawn, for either norm.

Source: Andriushchenko et al., "Square Attack" (2020), algorithm 2 (linf) and 3 (l2), section 4.
"""

from abc import abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import torch
from torch import Tensor

from atmc_core.attacks.norms import Ball
from atmc_core.attacks.rows import Rows

_TINY = 1e-12


@dataclass(frozen=True)
class Window:
    """A square of an image, and in l2 a second one that gives its perturbation away.

    Attributes:
        side: of both, in pixels.
        corner: row and column of its upper left pixel.
        donor: the same of the second.
    """

    side: int
    corner: tuple[int, int]
    donor: tuple[int, int]

    def view(self, images: Tensor) -> Tensor:
        """The square's pixels, ``[N, C, side, side]``, not copied."""
        return _square(images, self.corner, self.side)

    def donor_view(self, images: Tensor) -> Tensor:
        """The second square's pixels, likewise."""
        return _square(images, self.donor, self.side)


class Patches(Rows):
    """The points of a random search, one for each image, ``[N, C, H, W]``."""

    points: Tensor

    @abstractmethod
    def propose(
        self, window: Window, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Hashable | None]:
        """New content of a window; which points it alters, bool ``[N]``; what names the proposal.

        A proposal without a name never comes again.
        """

    @abstractmethod
    def altered(self, chosen: Tensor, proposal: Tensor, window: Window) -> Tensor:
        """Copies of the chosen points (row numbers) with the proposal in place."""


@dataclass
class LinfPatches(Patches):
    """Every pixel is at one end of what the ball and [0, 1] allow; a window goes to one end."""

    points: Tensor
    lower: Tensor
    upper: Tensor

    @classmethod
    def start(cls, images: Tensor, ball: Ball, generator: torch.Generator | None) -> Self:
        """Vertical stripes of width one, of random signs."""
        lower = (images - ball.epsilon).clamp_(min=0)
        upper = (images + ball.epsilon).clamp_(max=1)
        count, channels, _, width = images.shape
        up = _coins((count, channels, 1, width), images, generator)
        return cls(torch.where(up, upper, lower), lower, upper)

    def propose(
        self, window: Window, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Hashable | None]:
        up = _coins((self.points.shape[1], 1, 1), self.points, generator)
        proposal = torch.where(up, window.view(self.upper), window.view(self.lower))
        alters = (proposal != window.view(self.points)).flatten(1).any(1)
        return proposal, alters, (window.side, window.corner, tuple(up.flatten().tolist()))

    def altered(self, chosen: Tensor, proposal: Tensor, window: Window) -> Tensor:
        points = self.points[chosen]
        window.view(points)[:] = proposal[chosen]
        return points


@dataclass
class L2Patches(Patches):
    """The perturbation has the ball's length, before it is cut with [0, 1]."""

    points: Tensor
    images: Tensor
    epsilon: float

    @classmethod
    def start(cls, images: Tensor, ball: Ball, generator: torch.Generator | None) -> Self:
        """A grid of five by five bumps of random signs."""
        height, width = images.shape[2:]
        side = max(height // 5, 1)
        offset = torch.zeros_like(images)
        margin = (height - side * 5) // 2 if height >= 5 else 0
        for row in range(margin, height - side + 1, side):
            for column in range(margin, width - side + 1, side):
                bump = _random_bump(side, images, generator)
                offset[:, :, row : row + side, column : column + side] += bump
        return cls(_at_length(images, offset, ball.epsilon), images, ball.epsilon)

    def propose(
        self, window: Window, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Hashable | None]:
        """The whole new points: moving length into a window scales the rest, too."""
        offset = self.points - self.images
        used = offset.square().sum((1, 2, 3), keepdim=True)
        old = window.view(offset)
        old_squares = old.square().sum((2, 3), keepdim=True)
        # What both windows hold together: the donor's pixels outside the window, and the window's.
        rest = offset.clone()
        window.view(rest).zero_()
        given = old_squares + window.donor_view(rest).square().sum((2, 3), keepdim=True)
        spare = (self.epsilon**2 - used).clamp_min(0) / self.points.shape[1]
        bump = _random_bump(window.side, self.points, generator)
        bump = bump + old / (old_squares.sqrt() + _TINY)
        bump = bump * ((spare + given).sqrt() / (_length(bump, (2, 3)) + _TINY))
        window.donor_view(rest).zero_()
        window.view(rest)[:] = bump
        every = torch.ones(len(rest), dtype=torch.bool, device=rest.device)
        return _at_length(self.images, rest, self.epsilon), every, None

    def altered(self, chosen: Tensor, proposal: Tensor, window: Window) -> Tensor:
        return proposal if len(chosen) == len(proposal) else proposal[chosen]


def _at_length(images: Tensor, offset: Tensor, epsilon: float) -> Tensor:
    scale = epsilon / (_length(offset, (1, 2, 3)) + _TINY)
    return (images + offset * scale).clamp_(0, 1)


def _length(values: Tensor, dims: tuple[int, ...]) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(values, dim=dims, keepdim=True)
    return length


def _coins(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randint(2, shape, device=like.device, generator=generator).bool()


def _random_bump(side: int, images: Tensor, generator: torch.Generator | None) -> Tensor:
    """The l2 pattern, lying or upright, of a random sign for each image and channel."""
    bump = _bump(side).to(images)
    if _coins((1,), images, generator).item():
        bump = bump.T
    signs = _coins((*images.shape[:2], 1, 1), images, generator)
    return torch.where(signs, bump, -bump)


@lru_cache(maxsize=64)
def _bump(side: int) -> Tensor:
    """Two pyramids of opposite signs, one above the other, of Euclidean length 1 (equation 2)."""
    pattern = torch.zeros(side, side)
    upper = side // 2
    if upper:
        pattern[:upper] = _pyramid(upper, side)
    pattern[upper:] = -_pyramid(side - upper, side)
    return pattern.div_(torch.linalg.vector_norm(pattern))


def _pyramid(height: int, width: int) -> Tensor:
    """Nested rectangles around the middle, the inner ones heavier by 1/level^2; length 1."""
    pattern = torch.zeros(height, width)
    middle = (height // 2, width // 2)
    for level in range(max(middle) + 1):
        top, left = max(middle[0] - level, 0), max(middle[1] - level, 0)
        pattern[top : middle[0] + level + 1, left : middle[1] + level + 1] += 1 / (level + 1) ** 2
    return pattern.div_(torch.linalg.vector_norm(pattern))


def _square(images: Tensor, corner: tuple[int, int], side: int) -> Tensor:
    row, column = corner
    return images[:, :, row : row + side, column : column + side]
