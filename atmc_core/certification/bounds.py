"""Bounds of a program's values: intervals forwards, lines backwards.

Intervals: Gowal et al., "On the Effectiveness of Interval Bound Propagation for Training Verifiably
Robust Models" (2018). Lines: Zhang et al., "Efficient Neural Network Robustness Certification with
General Activation Functions" (CROWN, NeurIPS 2018), with slopes that are optimised as by Xu et al.,
"Fast and Complete" (alpha-CROWN, ICLR 2021).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from atmc_core.certification.program import Program
from atmc_core.certification.steps import Affine, Box, Elementwise, Relaxation, Step, inner

# Backwards, about so many numbers are held for the largest value of the network: on a CPU as many
# as its caches hold, since each step passes over them several times.
_AT_ONCE = {"cpu": 2**18}
_AT_ONCE_ELSEWHERE = 2**24


def intervals(program: Program, box: Box) -> list[Box]:
    """The boxes of all values, by number, from that of the images: ``[N, C, H, W]`` each."""
    boxes = [box]
    for placed in program.steps:
        boxes.append(placed.step.interval(*(boxes[i] for i in placed.inputs)))
    return boxes


class Backwards:
    """The way back through a network from a value to the images.

    Args:
        program: the network.
        boxes: those of its values by number; all that a step reads, before the first way through
            it.
        slopes: of lower lines, where they are free, by the number of the step's output.
    """

    def __init__(
        self,
        program: Program,
        boxes: Sequence[Box],
        slopes: Mapping[int, Tensor] | None = None,
    ) -> None:
        self.program, self.boxes, self.slopes = program, boxes, slopes or {}
        self._relaxed: dict[int, Relaxation] = {}
        # Values that are entries of an image, each moved and scaled by itself: their boxes are as
        # good as that of the image, and nearer.
        self._alone = {0}
        for number, placed in enumerate(program.steps, 1):
            separate = isinstance(placed.step, Affine) and placed.step.separate
            if separate and placed.inputs[0] in self._alone:
                self._alone.add(number)

    def exact(self, number: int) -> bool:
        """Whether the interval of a value is the smallest there is, entry by entry."""
        if number in self._alone:
            return True
        placed = self.program.steps[number - 1]
        if not isinstance(placed.step, Affine) or len(placed.inputs) > 1:
            return False
        before = placed.inputs[0]
        return before in self._alone or (placed.step.separate and self.exact(before))

    def least(self, number: int, coefficients: Tensor, *, to_images: bool = True) -> Tensor:
        """Lower bounds of linear functions of a value, ``[S, N]``.

        Args:
            number: that of the value.
            coefficients: those of the functions, ``[S, N, ...]``.
            to_images: go back through everything to the images; if not, through the linear steps
                that come last, and take the boxes there.
        """
        waiting = {number: coefficients}
        total: Tensor | float = 0.0
        while waiting:
            last = max(waiting)
            held = waiting.pop(last)
            if last in self._alone or not (to_images or self.program.steps[last - 1].step.linear):
                total = total + _on_box(held, self.boxes[last])
                continue
            found, offset = self._through(last)(held)
            total = total + offset
            for i, each in zip(self.program.steps[last - 1].inputs, found, strict=True):
                waiting[i] = waiting[i] + each if i in waiting else each
        assert isinstance(total, Tensor)
        return total

    def _through(self, number: int) -> Relaxation:
        """The step that makes a value, between the lines of its inputs' boxes."""
        if number not in self._relaxed:
            placed = self.program.steps[number - 1]
            boxes = [self.boxes[i] for i in placed.inputs]
            self._relaxed[number] = placed.step.relaxed(boxes, self.slopes.get(number))
        return self._relaxed[number]


def least(
    program: Program,
    boxes: Sequence[Box],
    coefficients: Tensor,
    slopes: Mapping[int, Tensor] | None = None,
    *,
    to_images: bool = True,
) -> Tensor:
    """Lower bounds of linear functions of the logits, ``[S, N]``; see ``Backwards``."""
    way = Backwards(program, boxes, slopes)
    return way.least(program.output, coefficients, to_images=to_images)


def _on_box(coefficients: Tensor, box: Box) -> Tensor:
    """The least of linear functions on a box, ``[S, N]``."""
    low, high = box
    # Rises with the lower ends, and falls by the widths of what has a negative coefficient.
    return inner(coefficients, low) + inner(coefficients.clamp_max(0), high - low)


def refined(program: Program, box: Box) -> list[Box]:
    """As ``intervals``, but with lines for whatever a non-linear step reads.

    Only those entries are refined whose bounds leave the step open.
    """
    boxes = [box]
    # The middle of the box tells which bound of an entry may settle its sign.
    points = [(box[0] + box[1]) / 2]
    way = Backwards(program, boxes)
    done: set[int] = set()
    for placed in program.steps:
        step = placed.step
        for i in placed.inputs:
            if not step.linear and not way.exact(i) and i not in done:
                _tighten(way, boxes, i, step, points[i] > 0)
                done.add(i)
        boxes.append(step.interval(*(boxes[i] for i in placed.inputs)))
        points.append(step.run(*(points[i] for i in placed.inputs)))
    return boxes


def _tighten(way: Backwards, boxes: list[Box], number: int, step: Step, positive: Tensor) -> None:
    """Bound a value by lines, too, where its box leaves the step open that reads it.

    Where one side may settle the step, the other one is bounded only if it has not. (On a residual
    network of CIFAR-10 it settles two thirds of the entries.)
    """
    settles = isinstance(step, Elementwise) and step.curve.settled_by_sign
    wanted = _open(step, boxes[number])
    first = ~positive & settles
    boxes[number] = _one_sided(way, number, wanted, first)
    # Of a step that no side settles the same entries are bounded from the other side.
    left = _open(step, boxes[number]) if settles else wanted
    boxes[number] = _one_sided(way, number, left, ~first)


def _open(step: Step, box: Box) -> Tensor:
    """Which entries are worth a tighter bound, bool ``[N, ...]``."""
    low, high = box
    if isinstance(step, Elementwise):
        return step.curve.open(low, high)
    return high > low


def _one_sided(way: Backwards, number: int, wanted: Tensor, from_above: Tensor) -> Box:
    """A value's box, in which the wanted entries have a bound by lines, too: from above or below.

    Args:
        way: back to the images.
        number: that of the value.
        wanted: which entries, bool ``[N, ...]``.
        from_above: which of them from above, bool ``[N, ...]``.
    """
    program, (low, high) = way.program, way.boxes[number]
    flat = wanted.flatten(1)
    most = int(flat.sum(1).max())
    if not most:
        return low, high
    # For each image its wanted entries, the rest filled up with some that are not.
    chosen = flat.to(torch.uint8).argsort(stable=True, dim=1, descending=True)[:, :most]
    count, entries = flat.shape
    largest = max(placed.shape.numel() for placed in program.steps[:number])
    held = _AT_ONCE.get(low.device.type, _AT_ONCE_ELSEWHERE)
    size = max(1, held // (count * max(largest, program.shape.numel())))
    signs = torch.where(from_above, -1.0, 1.0).to(low).flatten(1)
    new_low, new_high = low.flatten(1).clone(), high.flatten(1).clone()
    for part in torch.split(chosen, size, 1):
        sign = signs.gather(1, part)
        one = low.new_zeros(part.shape[1], count, entries)
        one.scatter_(2, part.t()[:, :, None], sign.t()[:, :, None])
        found = sign * way.least(number, one.view(-1, count, *low.shape[1:])).t()
        below, above = new_low.gather(1, part), new_high.gather(1, part)
        new_low.scatter_(1, part, torch.where(sign > 0, torch.maximum(below, found), below))
        new_high.scatter_(1, part, torch.where(sign < 0, torch.minimum(above, found), above))
    # Rounding may turn bounds around that meet.
    new_high = torch.maximum(new_low, new_high)
    return new_low.view_as(low), new_high.view_as(high)


def optimised(
    program: Program,
    boxes: Sequence[Box],
    coefficients: Tensor,
    steps: int,
    rate: float = 0.25,
) -> Tensor:
    """The best of the lower bounds of linear functions of the logits while slopes are optimised.

    Args:
        program: the network.
        boxes: those of all values, by number.
        coefficients: those of the functions, ``[S, N, classes]``.
        steps: how many steps of Adam.
        rate: its first learning rate, which falls to a tenth.

    Returns:
        The bounds, ``[S, N]``.
    """
    free = {
        number: placed
        for number, placed in enumerate(program.steps, 1)
        if isinstance(placed.step, Elementwise) and placed.step.curve.free
    }
    slopes: dict[int, Tensor] = {}
    for number, placed in free.items():
        low, high = boxes[placed.inputs[0]]
        first = (high > -low).to(low.dtype)
        slopes[number] = first.expand(len(coefficients), *first.shape).clone().requires_grad_()
    best = least(program, boxes, coefficients)
    if not slopes:
        return best
    optimiser = torch.optim.Adam(slopes.values(), lr=rate)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.1 ** (1 / max(steps, 1)))
    for _ in range(steps):
        with torch.enable_grad():
            found = least(program, boxes, coefficients, slopes)
            # What is proven already needs no better bound.
            loss = -(found.clamp_max(0)).sum()
        best = torch.maximum(best, found.detach())
        if bool((best > 0).all()):
            break
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            for each in slopes.values():
                each.clamp_(0, 1)
    return best


def margins(labels: Tensor, logits: Tensor) -> Tensor:
    """The true logit minus each other one, as coefficients ``[classes - 1, N, classes]``.

    The first row is of the class after the true one, and so on, the first class following the last.

    Args:
        labels: the true classes, int64 ``[N]``.
        logits: any like those that are bounded, ``[N, classes]``.
    """
    count, classes = logits.shape
    shifts = torch.arange(1, classes, device=labels.device)[:, None]
    truth = logits.new_zeros(classes - 1, count, classes)
    others = ((labels + shifts) % classes)[:, :, None]
    truth = truth.scatter(2, labels.expand(classes - 1, -1)[:, :, None], 1.0)
    return truth.scatter(2, others, -1.0)


def worst_logits(program: Program, boxes: Sequence[Box], labels: Tensor) -> Tensor:
    """For each class a bound of how far its logit can be above the true one, ``[N, classes]``.

    That of the true class is zero. The last linear steps are bounded as one, which is tighter.

    Args:
        program: the network.
        boxes: those of all values, by number.
        labels: the true classes, int64 ``[N]``.
    """
    logits = boxes[program.output][0]
    classes = logits.shape[1]
    below = least(program, boxes, margins(labels, logits), to_images=False)
    shifts = torch.arange(1, classes, device=labels.device)[:, None]
    others = ((labels + shifts) % classes).t()
    return torch.zeros_like(logits).scatter(1, others, -below.t())
