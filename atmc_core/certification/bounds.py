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
from atmc_core.certification.steps import Affine, Box, Elementwise, Step

# Backwards, about so many numbers are held for the largest value of the network.
_AT_ONCE = 2**22


def intervals(program: Program, box: Box) -> list[Box]:
    """The boxes of all values, by number, from that of the images: ``[N, C, H, W]`` each."""
    boxes = [box]
    for placed in program.steps:
        boxes.append(placed.step.interval(*(boxes[i] for i in placed.inputs)))
    return boxes


def least(
    program: Program,
    boxes: Sequence[Box],
    number: int,
    coefficients: Tensor,
    slopes: Mapping[int, Tensor] | None = None,
    *,
    to_images: bool = True,
) -> Tensor:
    """Lower bounds of linear functions of a value, ``[S, N]``.

    Args:
        program: the network.
        boxes: those of the values before it, by number.
        number: that of the value.
        coefficients: those of the functions, ``[S, N, ...]``.
        slopes: of lower lines, where they are free, by the number of the step's output.
        to_images: go back through everything to the images; if not, through the linear steps that
            come last, and take the boxes there.
    """
    waiting = {number: coefficients}
    total: Tensor | float = 0.0
    while waiting:
        last = max(waiting)
        held = waiting.pop(last)
        step = program.steps[last - 1].step if last else None
        if step is None or not (to_images or step.linear):
            total = total + _on_box(held, boxes[last])
            continue
        inputs = program.steps[last - 1].inputs
        own = [boxes[i] for i in inputs]
        found, offset = step.backward(held, own, (slopes or {}).get(last))
        total = total + offset
        for i, each in zip(inputs, found, strict=True):
            waiting[i] = waiting[i] + each if i in waiting else each
    assert isinstance(total, Tensor)
    return total


def _on_box(coefficients: Tensor, box: Box) -> Tensor:
    """The least of linear functions on a box, ``[S, N]``."""
    low, high = box
    centre, radius = (low + high) / 2, (high - low) / 2
    return (coefficients * centre - coefficients.abs() * radius).flatten(2).sum(2)


def refined(program: Program, box: Box) -> list[Box]:
    """As ``intervals``, but with lines for whatever a non-linear step reads.

    Only those entries are refined whose bounds leave the step open.
    """
    boxes = [box]
    exact = [True]  # whether the box is the smallest there is
    alone = [True]  # whether entries vary each by itself
    done: set[int] = set()
    for placed in program.steps:
        step = placed.step
        for i in placed.inputs:
            if not step.linear and not exact[i] and i not in done:
                boxes[i] = _tightened(program, boxes, i, _open(step, boxes[i]))
                done.add(i)
        boxes.append(step.interval(*(boxes[i] for i in placed.inputs)))
        first = placed.inputs[0]
        separate = isinstance(step, Affine) and step.separate
        alone.append(separate and alone[first])
        one = step.linear and len(placed.inputs) == 1
        exact.append((one and alone[first]) or (separate and exact[first]))
    return boxes


def _open(step: Step, box: Box) -> Tensor:
    """Which entries are worth a tighter bound, bool ``[N, ...]``."""
    low, high = box
    if isinstance(step, Elementwise):
        return step.curve.open(low, high)
    return high > low


def _tightened(program: Program, boxes: Sequence[Box], number: int, wanted: Tensor) -> Box:
    """A value's box, in which the wanted entries have bounds by lines, too."""
    low, high = boxes[number]
    flat = wanted.flatten(1)
    most = int(flat.sum(1).max())
    if not most:
        return low, high
    # For each image its open entries, the rest filled up with some that are not.
    chosen = flat.to(torch.uint8).argsort(stable=True, dim=1, descending=True)[:, :most]
    count, entries = flat.shape
    largest = max(placed.shape.numel() for placed in program.steps[:number])
    size = max(1, _AT_ONCE // (count * max(largest, program.shape.numel()) * 2))
    new_low, new_high = low.flatten(1).clone(), high.flatten(1).clone()
    shape = low.shape[1:]
    for part in torch.split(chosen, size, 1):
        one = low.new_zeros(part.shape[1], count, entries)
        one.scatter_(2, part.t()[:, :, None], 1.0)
        both = torch.cat([one, -one]).reshape(-1, count, *shape)
        found = least(program, boxes, number, both)
        below, above = found.chunk(2)
        new_low.scatter_(1, part, torch.maximum(new_low.gather(1, part), below.t()))
        new_high.scatter_(1, part, torch.minimum(new_high.gather(1, part), -above.t()))
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
    best = least(program, boxes, program.output, coefficients)
    if not slopes:
        return best
    optimiser = torch.optim.Adam(slopes.values(), lr=rate)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.1 ** (1 / max(steps, 1)))
    for _ in range(steps):
        with torch.enable_grad():
            found = least(program, boxes, program.output, coefficients, slopes)
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
    below = least(program, boxes, program.output, margins(labels, logits), to_images=False)
    shifts = torch.arange(1, classes, device=labels.device)[:, None]
    others = ((labels + shifts) % classes).t()
    return torch.zeros_like(logits).scatter(1, others, -below.t())
