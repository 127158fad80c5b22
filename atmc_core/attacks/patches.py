"""The proposals of the Square attack: how a window of a perturbation is redrawn, for each norm.

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

# Added to divisors, which may be zero.
_TINY = 1e-12
# The search in l2 starts from a grid of this many by this many bumps.
_GRID = 5


@dataclass(frozen=True)
class Window:
    """A square of an image that a proposal redraws.

    In l2 there is a second square, the donor: its perturbation is moved into the first one.

    Attributes:
        side: the side of both squares, in pixels.
        corner: row and column of the first square's upper left pixel.
        donor: row and column of the second square's upper left pixel.
    """

    side: int
    corner: tuple[int, int]
    donor: tuple[int, int]

    def view(self, images: Tensor) -> Tensor:
        """The first square of images ``[N, C, H, W]``: a view ``[N, C, side, side]``."""
        return _square(images, self.corner, self.side)

    def donor_view(self, images: Tensor) -> Tensor:
        """The second square of images ``[N, C, H, W]``: a view ``[N, C, side, side]``."""
        return _square(images, self.donor, self.side)


class Patches(Rows):
    """The current points of a random search, one for each image.

    Attributes:
        points: ``[N, C, H, W]`` in [0, 1].
    """

    points: Tensor

    @abstractmethod
    def propose(
        self, window: Window, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Hashable | None]:
        """Draw a change of a window.

        Returns:
            The proposal, in the form that ``altered`` takes; whether it alters each point, bool
            ``[N]``; and a key that is the same for equal proposals, or None if proposals never
            repeat.
        """

    @abstractmethod
    def altered(self, chosen: Tensor, proposal: Tensor, window: Window) -> Tensor:
        """Copies of some points with the proposal applied, ``[M, C, H, W]``.

        Args:
            chosen: the row numbers of the points, int64 ``[M]``.
            proposal: as ``propose`` drew it.
            window: the window that it was drawn for.
        """


@dataclass
class LinfPatches(Patches):
    """Points in linf: each pixel is at the lowest or highest value that ball and [0, 1] allow.

    A proposal sets all pixels of a window to one of the two, channel by channel.
    """

    points: Tensor
    lower: Tensor
    upper: Tensor

    @classmethod
    def start(cls, images: Tensor, ball: Ball, generator: torch.Generator | None) -> Self:
        """The first points: vertical stripes, one pixel wide, of random signs."""
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
    """Points in l2: before it is clamped to [0, 1], each perturbation is as long as the radius."""

    points: Tensor
    images: Tensor
    epsilon: float

    @classmethod
    def start(cls, images: Tensor, ball: Ball, generator: torch.Generator | None) -> Self:
        """The first points: a grid of five by five bumps of random signs."""
        height, width = images.shape[2:]
        side = max(height // _GRID, 1)
        offset = torch.zeros_like(images)
        margin = (height - side * _GRID) // 2 if height >= _GRID else 0
        for row in range(margin, height - side + 1, side):
            for column in range(margin, width - side + 1, side):
                bump = _random_bump(side, images, generator)
                offset[:, :, row : row + side, column : column + side] += bump
        return cls(_at_length(images, offset, ball.epsilon), images, ball.epsilon)

    def propose(
        self, window: Window, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Hashable | None]:
        """Propose whole new points: moving length into a window scales the other pixels, too."""
        offset = self.points - self.images
        used = offset.square().sum((1, 2, 3), keepdim=True)
        old = window.view(offset)
        old_squares = old.square().sum((2, 3), keepdim=True)
        # The squared length in both squares, without counting pixels that are in both twice.
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
    """The l2 pattern, transposed or not, with a random sign for each image and channel."""
    bump = _bump(side).to(images)
    if _coins((1,), images, generator).item():
        bump = bump.T
    signs = _coins((*images.shape[:2], 1, 1), images, generator)
    return torch.where(signs, bump, -bump)


@lru_cache(maxsize=64)
def _bump(side: int) -> Tensor:
    """Two pyramids of opposite signs, one above the other, of Euclidean length 1 (equation 2).

    Returns:
        The pattern, ``[side, side]``.
    """
    pattern = torch.zeros(side, side)
    upper = side // 2
    if upper:
        pattern[:upper] = _pyramid(upper, side)
    pattern[upper:] = -_pyramid(side - upper, side)
    return pattern.div_(torch.linalg.vector_norm(pattern))


def _pyramid(height: int, width: int) -> Tensor:
    """A sum of nested rectangles around the middle, weighted 1/level^2, of Euclidean length 1."""
    pattern = torch.zeros(height, width)
    middle = (height // 2, width // 2)
    for level in range(max(middle) + 1):
        top, left = max(middle[0] - level, 0), max(middle[1] - level, 0)
        pattern[top : middle[0] + level + 1, left : middle[1] + level + 1] += 1 / (level + 1) ** 2
    return pattern.div_(torch.linalg.vector_norm(pattern))


def _square(images: Tensor, corner: tuple[int, int], side: int) -> Tensor:
    row, column = corner
    return images[:, :, row : row + side, column : column + side]
