"""Auto-PGD: gradient ascent with momentum that chooses its own step size.

Source: Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
parameter-free attacks" (2020), section 3 and algorithm 1.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from atmc_core.attacks.base import Found, Model, SearchAttack, require_positive
from atmc_core.attacks.losses import cross_entropy, dlr, loss_named, targeted_dlr
from atmc_core.attacks.norms import Ball, Region
from atmc_core.attacks.rows import Rows
from atmc_core.attacks.targets import target_batches

# Maps logits [M, classes], labels [M] and targets [M] to a loss per pair, [M].
_Objective = Callable[[Tensor, Tensor, Tensor], Tensor]

# Alpha of equation 1: the weight of the new step against the momentum.
_MOMENTUM = 0.75
# The first step size, in radii.
_FIRST_STEP = 2
# The step sizes are checked at intervals that shrink (section 3.1). These are the first interval,
# the shortest one, and by how much each is shorter than the one before, as shares of all steps.
_FIRST_INTERVAL, _SHORTEST_INTERVAL, _SHRINKAGE = 0.22, 0.06, 0.03
# The targeted DLR needs four logits, and the untargeted one three.
_TARGETED_DLR_CLASSES, _DLR_CLASSES = 4, 3


@dataclass(frozen=True)
class APGD(SearchAttack):
    """Auto-PGD on an untargeted loss, from one random start.

    Attributes:
        ball: the ball that the perturbations stay in.
        loss: "ce" (cross-entropy), "cw" (margin of the logits) or "dlr" (difference of logits
            ratio); see ``atmc_core.attacks.losses``.
        steps: the number of gradient steps.
        rho: a step size is halved if at most this share of the steps since the last check raised
            the loss.

    Raises:
        ValueError: if a number is not positive, or there is no such loss.
    """

    ball: Ball
    loss: str = field(default="ce", kw_only=True)
    steps: int = field(default=100, kw_only=True)
    rho: float = field(default=0.75, kw_only=True)

    def __post_init__(self) -> None:
        require_positive(steps=self.steps, rho=self.rho)
        loss_named(self.loss)

    def search(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        logits: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Found:
        loss, found = loss_named(self.loss), Found(images)
        numbers = torch.arange(len(images), device=images.device)
        climb = _Climb(model, found, lambda logits, labels, _: loss(logits, labels))
        pairs = _Pairs(self.ball.around(images), numbers, labels, labels)
        climb.run(pairs, self.ball.epsilon, self.steps, self.rho, generator)
        return found


@dataclass(frozen=True)
class APGDT(SearchAttack):
    """Auto-PGD on the targeted DLR loss, once for each of the most likely other classes.

    The targeted DLR is not defined for fewer than four classes. A model with three classes is
    attacked on the untargeted DLR instead, and a model with two, where every loss climbs the same
    margin, on the cross-entropy, in both cases once, from a new random start. (The authors do not
    attack such models with APGD-T.)

    Attributes:
        ball: the ball that the perturbations stay in.
        targets: the largest number of target classes for each image; at most all but the true one.
        steps: the number of gradient steps for each target.
        rho: as in ``APGD``.
        batch_size: the number of pairs of image and target that are attacked at a time.

    Raises:
        ValueError: if a number is not positive.
    """

    ball: Ball
    targets: int = field(default=9, kw_only=True)
    steps: int = field(default=100, kw_only=True)
    rho: float = field(default=0.75, kw_only=True)
    batch_size: int = field(default=256, kw_only=True)

    def __post_init__(self) -> None:
        require_positive(
            targets=self.targets, steps=self.steps, rho=self.rho, batch_size=self.batch_size
        )

    def search(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        logits: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Found:
        found = Found(images)
        objective, targets = self._objective(logits.shape[1])
        climb = _Climb(model, found, objective)
        for numbers, classes in target_batches(
            logits, labels, found, targets=targets, batch_size=self.batch_size
        ):
            pairs = _Pairs(self.ball.around(images[numbers]), numbers, labels[numbers], classes)
            climb.run(pairs, self.ball.epsilon, self.steps, self.rho, generator)
        return found

    def _objective(self, num_classes: int) -> tuple[_Objective, int]:
        """What is climbed, and for how many targets, given the model's number of classes."""
        if num_classes >= _TARGETED_DLR_CLASSES:
            return targeted_dlr, self.targets
        loss = dlr if num_classes == _DLR_CLASSES else cross_entropy
        return (lambda logits, labels, _: loss(logits, labels)), 1


@dataclass
class _Pairs(Rows):
    """Pairs of image and target; ``numbers`` are the images' row numbers, int64 ``[M]``."""

    region: Region
    numbers: Tensor
    labels: Tensor
    targets: Tensor


@dataclass
class _Walk(Rows):
    """The state of the ascent of each pair.

    Attributes:
        pairs: the pairs of image and target.
        points: the current points, ``[M, C, H, W]``.
        previous: the points before the last step, ``[M, C, H, W]``.
        gradient: the gradient of the loss at the current points, ``[M, C, H, W]``.
        loss: the loss at the current points, ``[M]``.
        best: the points of the highest loss so far, ``[M, C, H, W]``.
        best_gradient: the gradient at those, ``[M, C, H, W]``.
        best_loss: the loss at those, ``[M]``.
        step_size: ``[M, 1, 1, 1]``, in the ball's norm.
        rises: how many steps raised the loss since the last check, ``[M]``.
        checked_loss: the best loss at the last check, ``[M]``.
        halved: whether the last check halved the step size, bool ``[M]``.
    """

    pairs: _Pairs
    points: Tensor
    previous: Tensor
    gradient: Tensor
    loss: Tensor
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    step_size: Tensor
    rises: Tensor
    checked_loss: Tensor
    halved: Tensor


@dataclass
class _Climb:
    """Ascents against one model; a pair that fools it is noted in ``found`` and leaves the batch.

    Attributes:
        model: the attacked model.
        found: receives the adversarial points.
        objective: what is climbed.
    """

    model: Model
    found: Found
    objective: _Objective

    def run(
        self,
        pairs: _Pairs,
        epsilon: float,
        steps: int,
        rho: float,
        generator: torch.Generator | None,
    ) -> None:
        """Climb for ``steps`` steps, or until every image of the pairs has fallen."""
        walk = self._start(pairs, epsilon, generator)
        intervals = _check_intervals(steps)
        interval = next(intervals)
        since = 0
        for step in range(steps):
            if not len(walk.points):
                return
            _advance(walk, momentum=step > 0)
            walk = self._evaluate(walk, last=step + 1 == steps)
            since += 1
            if since == interval:
                _adapt(walk, rho * interval)
                interval, since = next(intervals), 0

    def _start(self, pairs: _Pairs, epsilon: float, generator: torch.Generator | None) -> _Walk:
        points = pairs.region.surface(generator)
        logits, loss, gradient = self._differentiate(points, pairs)
        shape = (len(points), *[1] * (points.ndim - 1))
        step_size = torch.full(shape, _FIRST_STEP * epsilon).to(points)
        walk = _Walk(
            pairs=pairs,
            points=points,
            previous=points,
            gradient=gradient,
            loss=loss,
            best=points.clone(),
            best_gradient=gradient.clone(),
            best_loss=loss.clone(),
            step_size=step_size,
            rises=torch.zeros_like(loss),
            checked_loss=loss.clone(),
            halved=torch.ones_like(loss, dtype=torch.bool),
        )
        return self._without_fallen(walk, logits)

    def _evaluate(self, walk: _Walk, *, last: bool) -> _Walk:
        """Run the model on the new points; after the ``last`` step no gradient is needed."""
        if last:
            with torch.no_grad():
                return self._without_fallen(walk, self.model(walk.points))
        logits, loss, walk.gradient = self._differentiate(walk.points, walk.pairs)
        walk.rises += loss > walk.loss
        walk.loss = loss
        walk = self._without_fallen(walk, logits)
        better = (walk.loss > walk.best_loss).nonzero()[:, 0]
        walk.best[better] = walk.points[better]
        walk.best_gradient[better] = walk.gradient[better]
        walk.best_loss[better] = walk.loss[better]
        return walk

    def _differentiate(self, points: Tensor, pairs: _Pairs) -> tuple[Tensor, Tensor, Tensor]:
        points = points.detach().requires_grad_()
        with torch.enable_grad():
            logits = self.model(points)
            loss = self.objective(logits, pairs.labels, pairs.targets)
            (gradient,) = torch.autograd.grad(loss.sum(), points)
        return logits.detach(), loss.detach(), gradient

    def _without_fallen(self, walk: _Walk, logits: Tensor) -> _Walk:
        fallen = logits.argmax(1) != walk.pairs.labels
        if not fallen.any():
            return walk
        self.found.record(walk.pairs.numbers[fallen], walk.points[fallen])
        return walk.rows(~self.found.fooled[walk.pairs.numbers])


def _advance(walk: _Walk, *, momentum: bool) -> None:
    """Take one step of equation 1: it is projected before and after the momentum is added."""
    region = walk.pairs.region
    stepped = region.direction(walk.gradient).mul_(walk.step_size).add_(walk.points)
    stepped = region.project(stepped)
    if momentum:
        drift = torch.sub(walk.points, walk.previous).add_(walk.points)
        stepped = region.project(stepped.mul_(_MOMENTUM).add_(drift, alpha=1 - _MOMENTUM))
    walk.previous, walk.points = walk.points, stepped


def _adapt(walk: _Walk, enough_rises: float) -> None:
    """Halve the step size of ascents that have stalled, and move those back to their best point.

    An ascent has stalled (conditions 1 and 2 of section 3.1) if too few steps raised the loss, or
    if neither its step size nor its best loss has changed since the last check.
    """
    stuck = ~walk.halved & (walk.checked_loss >= walk.best_loss)
    stalled = (walk.rises <= enough_rises) | stuck
    chosen = stalled.nonzero()[:, 0]
    walk.step_size[chosen] /= 2
    # `points` can be the same tensor as `previous`, so it is replaced and not written into.
    walk.points = torch.where(_per_row(stalled, walk.points), walk.best, walk.points)
    walk.gradient[chosen] = walk.best_gradient[chosen]
    walk.halved = stalled
    walk.checked_loss = walk.best_loss.clone()
    walk.rises = torch.zeros_like(walk.rises)


def _check_intervals(steps: int) -> Iterator[int]:
    """The numbers of steps between checks of the step sizes: 22, 19, 16 ... 6 for 100 steps."""
    interval = max(int(_FIRST_INTERVAL * steps), 1)
    least = max(int(_SHORTEST_INTERVAL * steps), 1)
    shorter = max(int(_SHRINKAGE * steps), 1)
    while True:
        yield interval
        interval = max(interval - shorter, least)


def _per_row(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))
