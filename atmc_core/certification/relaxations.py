"""Functions of one number, bounded from below and above by lines over an interval."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

# How many equal parts an interval is divided into where a smooth function is searched.
_PARTS = 16


class Lines(NamedTuple):
    """Two lines for each entry: ``slope * x + offset`` is below or above the function.

    A lower offset of None is zero everywhere.
    """

    lower_slope: Tensor
    lower_offset: Tensor | None
    upper_slope: Tensor
    upper_offset: Tensor


class Curve(ABC):
    """A function of one number."""

    #: Whether the slope of the lower line may be any number in [0, 1] where the input's sign is
    #: open, so that it can be optimised.
    free: bool = False
    #: Whether the function is a line on either side of zero, so that one bound that settles the
    #: input's sign is all it takes.
    settled_by_sign: bool = False

    @abstractmethod
    def value(self, x: Tensor) -> Tensor:
        """The function, entry by entry."""

    @abstractmethod
    def range(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The least and the largest value for inputs from ``low`` to ``high``."""

    @abstractmethod
    def lines(self, low: Tensor, high: Tensor, slopes: Tensor | None = None) -> Lines:
        """Lines that bound the function for inputs from ``low`` to ``high``.

        Args:
            low: the least input of each entry.
            high: the largest one.
            slopes: for a ``free`` function, the slopes of the lower lines, in [0, 1].
        """

    def open(self, low: Tensor, high: Tensor) -> Tensor:
        """Where tighter bounds of the input would make the lines better, bool."""
        return high > low


class Relu(Curve):
    """max(x, 0), bounded as in CROWN (Zhang et al., NeurIPS 2018)."""

    free = True
    settled_by_sign = True

    def value(self, x: Tensor) -> Tensor:
        return x.relu()

    def range(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        return low.relu(), high.relu()

    def lines(self, low: Tensor, high: Tensor, slopes: Tensor | None = None) -> Lines:
        unsure = self.open(low, high)
        on = (low >= 0).to(low.dtype)
        chord = high / torch.where(unsure, high - low, 1)
        if slopes is None:
            # Of all slopes in [0, 1] this one leaves the smaller area between the two lines.
            slopes = (high > -low).to(low.dtype)
        upper = torch.where(unsure, chord, on)
        lower = torch.where(unsure, slopes, on)
        return Lines(lower, None, upper, torch.where(unsure, -low * chord, 0))

    def open(self, low: Tensor, high: Tensor) -> Tensor:
        return (low < 0) & (high > 0)


@dataclass(frozen=True)
class Searched(Curve):
    """A function that is bounded by looking at it along the interval.

    Both lines have the slope of the chord. Between two points of the search the function is off its
    own chord by at most an eighth of the points' squared distance times its curvature, and kinks
    are among the points.

    Attributes:
        function: the function, entry by entry.
        curvature: the largest absolute second derivative between kinks; 0 if it is made of lines.
        kinks: where its slope jumps.
        rises: whether it never falls, so that its range is between its values at the ends.
    """

    function: Callable[[Tensor], Tensor]
    curvature: float = 0.0
    kinks: tuple[float, ...] = ()
    rises: bool = False

    def value(self, x: Tensor) -> Tensor:
        return self.function(x)

    def range(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        if self.rises:
            return self.function(low), self.function(high)
        return self._extremes(low, high, torch.zeros_like(low))

    def lines(self, low: Tensor, high: Tensor, slopes: Tensor | None = None) -> Lines:
        width = high - low
        rise = self.function(high) - self.function(low)
        slope = torch.where(width > 0, rise / torch.where(width > 0, width, 1), 0)
        least, most = self._extremes(low, high, slope)
        return Lines(slope, least, slope, most)

    def _extremes(self, low: Tensor, high: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        """The least and the largest of the function minus ``slope * x``."""
        parts = _PARTS if self.curvature else 1
        points = [low + (high - low) * (i / parts) for i in range(parts)] + [high]
        points += [torch.full_like(low, kink).clamp(low, high) for kink in self.kinks]
        least = most = self.function(low) - slope * low
        for point in points[1:]:
            value = self.function(point) - slope * point
            least, most = torch.minimum(least, value), torch.maximum(most, value)
        off = self.curvature / 8 * ((high - low) / parts).square()
        return least - off, most + off
