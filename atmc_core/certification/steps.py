"""The kinds of steps that a network's computation is made of, each with its bounds.

A step reads one or several tensors ``[N, ...]`` and makes one. Boxes are pairs of tensors, the
least and the largest value of each entry. Coefficients of linear bounds are tensors
``[S, N, ...]``: S linear functions of a tensor ``[N, ...]``, each bounded for each image.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from atmc_core.certification.relaxations import Curve, Lines

Box = tuple[Tensor, Tensor]
#: A step between linear bounds of what it reads. Given coefficients ``[S, N, ...]`` of its output,
#: it bounds those functions from below by linear functions of its inputs: it returns their
#: coefficients, and the constants ``[S, N]`` that are added.
Relaxation = Callable[[Tensor], tuple[list[Tensor], Tensor | float]]


def inner(coefficients: Tensor, values: Tensor) -> Tensor:
    """Linear functions at points, ``[S, N]``.

    Args:
        coefficients: ``[S, N, ...]``.
        values: the points, ``[N, ...]``, or ``[1, ...]`` if all images have the same.
    """
    rows = coefficients.flatten(2)
    if len(values) == 1:
        return rows @ values.flatten()
    return torch.bmm(rows.transpose(0, 1), values.flatten(1)[:, :, None])[:, :, 0].t()


class Step(ABC):
    """One step of a computation."""

    #: Whether the step needs bounds of its inputs for linear bounds of its output.
    linear: ClassVar[bool] = False
    #: What the step is called if its bounds are so loose that it may be in a proof's way.
    loose: ClassVar[str] = ""

    @abstractmethod
    def run(self, *inputs: Tensor) -> Tensor:
        """Compute the output at points, ``[N, ...]`` for any N."""

    @abstractmethod
    def interval(self, *boxes: Box) -> Box:
        """The box of the output, given those of the inputs."""

    @abstractmethod
    def relaxed(self, boxes: Sequence[Box], slopes: Tensor | None = None) -> Relaxation:
        """Bound the step by linear functions of its inputs.

        Args:
            boxes: bounds of the inputs, which a linear step does not read.
            slopes: the slopes of lower lines where they are free, see ``Curve.lines``.
        """


@dataclass(frozen=True)
class Affine(Step):
    """A linear step with a constant, of one input or several.

    Attributes:
        function: computes the output, for any number of images.
        spread: the linear part with the absolute values of all coefficients; None if none of
            them is negative, so that the output never falls while an input rises.
        transposed: maps ``[M, ...]`` coefficients of the output to those of the inputs; None means
            by differentiation.
        shapes: of the inputs, without the batch axis.
        separate: whether each entry of the output reads at most one of the input, and each of the
            input is read once; then a box becomes a box.
    """

    function: Callable[..., Tensor]
    shapes: tuple[torch.Size, ...]
    spread: Callable[..., Tensor] | None = None
    transposed: Callable[[Tensor], list[Tensor]] | None = None
    separate: bool = False
    linear: ClassVar[bool] = True

    def run(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)

    def constant(self, like: Tensor, count: int = 1) -> Tensor:
        """The output at zero, ``[count, ...]``."""
        return self.function(*(like.new_zeros(count, *shape) for shape in self.shapes))

    def interval(self, *boxes: Box) -> Box:
        lows, highs = zip(*boxes, strict=True)
        if self.spread is None:
            return self.function(*lows), self.function(*highs)
        centre = self.function(*((low + high) / 2 for low, high in boxes))
        radius = self.spread(*((high - low) / 2 for low, high in boxes))
        return centre - radius, centre + radius

    def relaxed(self, boxes: Sequence[Box], slopes: Tensor | None = None) -> Relaxation:
        constant = self.constant(boxes[0][0])
        shifted = bool(constant.any())

        def back(coefficients: Tensor) -> tuple[list[Tensor], Tensor | float]:
            found = (self.transposed or self._differentiated)(coefficients.flatten(0, 1))
            lead = coefficients.shape[:2]
            offset = inner(coefficients, constant) if shifted else 0.0
            return [each.view(*lead, *each.shape[1:]) for each in found], offset

        return back

    def _differentiated(self, rows: Tensor) -> list[Tensor]:
        zeros = [rows.new_zeros(len(rows), *shape).requires_grad_() for shape in self.shapes]
        with torch.enable_grad():
            output = self.function(*zeros)
        return list(
            torch.autograd.grad(
                output, zeros, rows, create_graph=torch.is_grad_enabled() and rows.requires_grad
            )
        )


@dataclass(frozen=True)
class Elementwise(Step):
    """A function of each entry by itself.

    Attributes:
        curve: the function with its bounds.
    """

    curve: Curve

    def run(self, *inputs: Tensor) -> Tensor:
        return self.curve.value(inputs[0])

    def interval(self, *boxes: Box) -> Box:
        return self.curve.range(*boxes[0])

    def relaxed(self, boxes: Sequence[Box], slopes: Tensor | None = None) -> Relaxation:
        lines: Lines = self.curve.lines(*boxes[0], slopes)
        # A lower line bounds what has a positive coefficient, an upper one the rest. The products
        # run over all coefficients with the lower line, then over the negative ones with what the
        # upper one is more, since passes over memory are what takes the time here.
        steeper, higher = lines.upper_slope - lines.lower_slope, lines.upper_offset
        if lines.lower_offset is not None:
            higher = higher - lines.lower_offset

        def back(coefficients: Tensor) -> tuple[list[Tensor], Tensor | float]:
            negative = coefficients.clamp_max(0)
            offset = inner(negative, higher)
            if lines.lower_offset is not None:
                offset = offset + inner(coefficients, lines.lower_offset)
            found = torch.addcmul(coefficients * lines.lower_slope, negative, steeper)
            return [found], offset

        return back


@dataclass(frozen=True)
class Maximum(Step):
    """The largest entry of each of several windows.

    Attributes:
        function: computes the output at points, for any number of images.
        winners: computes the positions of the winners in the flattened image, int64 ``[N, ...]``
            of the output's shape, each within the input's entries of one image.
        shape: that of the input, without the batch axis.
    """

    function: Callable[[Tensor], Tensor]
    winners: Callable[[Tensor], Tensor]
    shape: torch.Size
    loose: ClassVar[str] = "max pooling"

    def run(self, *inputs: Tensor) -> Tensor:
        return self.function(inputs[0])

    def interval(self, *boxes: Box) -> Box:
        low, high = boxes[0]
        return self.function(low), self.function(high)

    def relaxed(self, boxes: Sequence[Box], slopes: Tensor | None = None) -> Relaxation:
        (low, high) = boxes[0]
        # A maximum is at least the entry with the largest lower bound. It is that entry, if no
        # other one can be larger; otherwise it is at most the largest upper bound.
        best = self.winners(low)
        places, floors = best.flatten(1), low.flatten(1)
        others = high.flatten(1).scatter(1, places, floors.gather(1, places)).view_as(high)
        ceiling = self.function(high)
        decided = self.function(others) <= self.function(low)
        ceiling = ~decided * ceiling

        def back(coefficients: Tensor) -> tuple[list[Tensor], Tensor | float]:
            negative = coefficients.clamp_max(0)
            chosen = coefficients - negative * ~decided
            found = coefficients.new_zeros(*coefficients.shape[:2], self.shape.numel())
            index = places.expand(len(coefficients), -1, -1)
            found = found.scatter_add(2, index, chosen.flatten(2))
            return [found.view(*coefficients.shape[:2], *self.shape)], inner(negative, ceiling)

        return back


@dataclass(frozen=True)
class Larger(Step):
    """The larger of two tensors, entry by entry.

    Attributes:
        shape: that of both, without the batch axis.
    """

    shape: torch.Size
    loose: ClassVar[str] = "the larger of two tensors"

    def run(self, *inputs: Tensor) -> Tensor:
        return torch.maximum(*inputs)

    def interval(self, *boxes: Box) -> Box:
        (low, high), (other_low, other_high) = boxes
        return torch.maximum(low, other_low), torch.maximum(high, other_high)

    def relaxed(self, boxes: Sequence[Box], slopes: Tensor | None = None) -> Relaxation:
        (low, high), (other_low, other_high) = boxes
        first = low >= other_low
        decided = torch.where(first, other_high <= low, high <= other_low)
        ceiling = ~decided * torch.maximum(high, other_high)

        def back(coefficients: Tensor) -> tuple[list[Tensor], Tensor | float]:
            negative = coefficients.clamp_max(0)
            chosen = coefficients - negative * ~decided
            return [chosen * first, chosen * ~first], inner(negative, ceiling)

        return back
