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
#: Given coefficients of a step's output, those of its inputs and the constant ``[S, N]`` that the
#: bound gains.
Backward = tuple[list[Tensor], Tensor | float]


class Step(ABC):
    """One step of a computation."""

    #: Whether the step needs bounds of its inputs for linear bounds of its output.
    linear: ClassVar[bool] = False

    @abstractmethod
    def run(self, *inputs: Tensor) -> Tensor:
        """Compute the output at points, ``[N, ...]`` for any N."""

    @abstractmethod
    def interval(self, *boxes: Box) -> Box:
        """The box of the output, given those of the inputs."""

    @abstractmethod
    def backward(
        self, coefficients: Tensor, boxes: Sequence[Box], slopes: Tensor | None = None
    ) -> Backward:
        """Bound linear functions of the output from below by linear functions of the inputs.

        Args:
            coefficients: those of the output, ``[S, N, ...]``.
            boxes: bounds of the inputs; empty boxes will do for a linear step.
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

    def backward(
        self, coefficients: Tensor, boxes: Sequence[Box], slopes: Tensor | None = None
    ) -> Backward:
        rows = coefficients.flatten(0, 1)
        found = (self.transposed or self._differentiated)(rows)
        offset = (coefficients * self.constant(coefficients)).flatten(2).sum(2)
        lead = coefficients.shape[:2]
        return [each.view(*lead, *each.shape[1:]) for each in found], offset

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

    def backward(
        self, coefficients: Tensor, boxes: Sequence[Box], slopes: Tensor | None = None
    ) -> Backward:
        lines: Lines = self.curve.lines(*boxes[0], slopes)
        positive, negative = coefficients.clamp_min(0), coefficients.clamp_max(0)
        found = positive * lines.lower_slope + negative * lines.upper_slope
        offset = positive * lines.lower_offset + negative * lines.upper_offset
        return [found], offset.flatten(2).sum(2)


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

    def run(self, *inputs: Tensor) -> Tensor:
        return self.function(inputs[0])

    def interval(self, *boxes: Box) -> Box:
        low, high = boxes[0]
        return self.function(low), self.function(high)

    def backward(
        self, coefficients: Tensor, boxes: Sequence[Box], slopes: Tensor | None = None
    ) -> Backward:
        (low, high) = boxes[0]
        # A maximum is at least the entry with the largest lower bound. It is that entry, if no
        # other one can be larger; otherwise it is at most the largest upper bound.
        best = self.winners(low)
        places, floors = best.flatten(1), low.flatten(1)
        others = high.flatten(1).scatter(1, places, floors.gather(1, places)).view_as(high)
        ceiling = self.function(high)
        decided = self.function(others) <= self.function(low)
        positive, negative = coefficients.clamp_min(0), coefficients.clamp_max(0)
        chosen = positive + negative * decided
        offset = negative * (~decided * ceiling)
        found = coefficients.new_zeros(*coefficients.shape[:2], self.shape.numel())
        index = best.flatten(1).expand(len(coefficients), -1, -1)
        found = found.scatter_add(2, index, chosen.flatten(2))
        return [found.view(*coefficients.shape[:2], *self.shape)], offset.flatten(2).sum(2)


@dataclass(frozen=True)
class Larger(Step):
    """The larger of two tensors, entry by entry.

    Attributes:
        shape: that of both, without the batch axis.
    """

    shape: torch.Size

    def run(self, *inputs: Tensor) -> Tensor:
        return torch.maximum(*inputs)

    def interval(self, *boxes: Box) -> Box:
        (low, high), (other_low, other_high) = boxes
        return torch.maximum(low, other_low), torch.maximum(high, other_high)

    def backward(
        self, coefficients: Tensor, boxes: Sequence[Box], slopes: Tensor | None = None
    ) -> Backward:
        (low, high), (other_low, other_high) = boxes
        first = low >= other_low
        decided = torch.where(first, other_high <= low, high <= other_low)
        positive, negative = coefficients.clamp_min(0), coefficients.clamp_max(0)
        chosen = positive + negative * decided
        offset = negative * (~decided * torch.maximum(high, other_high))
        return [chosen * first, chosen * ~first], offset.flatten(2).sum(2)
