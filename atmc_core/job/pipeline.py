"""A job as a sequence of stages made of epochs; it can be resumed after every epoch."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from atmc_core.events import Emit
from atmc_core.job.checkpoint import CheckpointFolder
from atmc_core.job.handover import Handover, State
from atmc_core.job.products import Found, Keys, Shelf, waiting, write_product
from atmc_core.training import distributed
from atmc_core.training.effort import TrainingPlan

_FINISHED = {"status": "finished"}


class Stage(ABC):
    """A stage that has started."""

    @abstractmethod
    def run_epoch(self, index: int) -> dict[str, float]:
        """Run epoch ``index``, counted from 0, and return figures worth showing.

        An epoch of training is one pass over the training images. An epoch of an evaluation is a
        batch under one attack, a point of the curve, or the probe.
        """

    @abstractmethod
    def finish(self, handover: Handover) -> None:
        """Add the stage's result to the handover, for the stages that follow."""

    @abstractmethod
    def state(self) -> State:
        """All that ``restore`` needs to continue after the last epoch: tensors and plain values."""

    @abstractmethod
    def restore(self, state: State) -> None:
        """Continue from a ``state``, whose tensors may lie on the CPU."""


@dataclass(frozen=True)
class StagePlan:
    """A stage that has not started: how long it is, and how to make it from the handover.

    Attributes:
        name: the name that events give it.
        epochs: how many epochs it has.
        cost: the cost of every epoch, or a sequence of each one's, in forward passes of one image.
        make: makes the stage from the handover of the stages before it.
        skipped: why the stage has no epochs though one might expect some; its last event says it.
        shared: whether all of the job's processes take part, instead of the first one alone.
        gives: the field of the handover that the stage sets.
        needs: the fields of the handover that it reads.
        reads: what its result depends on beside these and the job's inputs (``dependence``); None
            keeps the stage from being shared with other jobs.
    """

    name: str
    epochs: int
    cost: float | Sequence[float]
    make: Callable[[Handover], Stage]
    skipped: str | None = None
    shared: bool = False
    gives: str = ""
    needs: tuple[str, ...] = ()
    reads: Mapping[str, Any] | None = None

    def cost_of(self, first: int, last: int) -> float:
        """The cost of the epochs from ``first`` up to, not including, ``last``."""
        if isinstance(self.cost, Sequence):
            return sum(self.cost[first:last])
        return (last - first) * self.cost


class Progress:
    """Emits the share of the job that is done and the time that the rest will take.

    Attributes:
        total: the cost of all epochs of all stages.
        done: the cost of the epochs done so far.
    """

    def __init__(self, stages: Sequence[StagePlan], emit: Emit) -> None:
        self.total = sum(stage.cost_of(0, stage.epochs) for stage in stages) or 1.0
        self.done = 0.0
        self.emit = emit
        self._worked = 0.0
        self._started = time.monotonic()

    def skip(self, stage: StagePlan, first: int, last: int) -> None:
        """Count a stage's epochs from ``first`` up to ``last``, which this attempt does not do."""
        self.done += stage.cost_of(first, last)

    def advance(self, stage: StagePlan, epoch: int) -> None:
        """Count an epoch that this attempt has done, and emit the progress."""
        cost = stage.cost_of(epoch, epoch + 1)
        self.done += cost
        self._worked += cost
        # No pace is known while all epochs of this attempt have cost nothing.
        pace = (time.monotonic() - self._started) / self._worked if self._worked else None
        self.emit(
            {
                "type": "progress",
                "stage": stage.name,
                "epoch": epoch + 1,
                "epochs": stage.epochs,
                "progress": min(1.0, self.done / self.total),
                "eta_s": None if pace is None else max(0.0, self.total - self.done) * pace,
            }
        )


@dataclass(frozen=True)
class Position:
    """The point that a job has reached.

    Attributes:
        handover: the results of the stages before the present one.
        stage: the number of the present stage, counted from 0.
        done: how many epochs of that stage are done.
        state: the state of that stage; None before its first epoch.
    """

    handover: Handover
    stage: int = 0
    done: int = 0
    state: State | None = None


def resume(checkpoints: CheckpointFolder, emit: Emit) -> Position | None:
    """The position in the newest checkpoint that can be read, or None if there is none.

    A warning is emitted for each newer checkpoint that cannot be read.
    """
    saved, broken = distributed.from_first(checkpoints.load())
    for name in broken:
        emit({"type": "warning", "code": "broken_checkpoint", "message": f"skipped {name}"})
    if saved is None:
        return None
    return Position(**(saved | {"handover": Handover.from_state(saved["handover"])}))


def agree_on(plan: TrainingPlan) -> TrainingPlan:
    """The first process's plan, on all processes: each may have measured other times."""
    return TrainingPlan.from_json(distributed.from_first(plan.to_json()))


@dataclass(frozen=True)
class Sharing:
    """With what a job shares the results of its stages.

    Attributes:
        shelf: where they lie.
        keys: the stages' keys.
        read: reads the field of the handover that a stage gives from a product's file; None if the
            file holds none that fits the job.
    """

    shelf: Shelf
    keys: Keys
    read: Callable[[Found, str], State | None]


def run_stages(
    stages: Sequence[StagePlan],
    start: Position,
    checkpoints: CheckpointFolder,
    emit: Emit,
    sharing: Sharing | None = None,
) -> Handover:
    """Run all stages in their order from a position on, and return their results.

    Args:
        sharing: takes what other jobs have made, and lays there what this one makes; None shares
            nothing.

    Raises:
        FloatingPointError: if training diverges.
    """
    if start.done:
        emit({"type": "resumed", "stage": stages[start.stage].name, "epoch": start.done})
    progress = Progress(stages, emit)
    at = start
    for number, stage in enumerate(stages):
        key = _key(stage, sharing)
        if number < start.stage:
            progress.skip(stage, 0, stage.epochs)
            continue
        emit({"type": "stage", "stage": stage.name, "status": "started"})
        progress.skip(stage, 0, at.done)
        if not at.done:
            at.handover.stage_began = at.handover.seconds
        found = _taken(stage, key, at, sharing, emit)
        if found is not None:
            progress.skip(stage, at.done, stage.epochs)
        elif stage.shared or distributed.is_first():
            _run_stage(stage, number, at, checkpoints, progress)
            _put(stage, key, at.handover, sharing)
        at = Position(_from_first(at.handover))
        emit({"type": "stage", "stage": stage.name} | _end_of(stage, found))
    return at.handover


def _end_of(stage: StagePlan, found: State | None) -> dict[str, Any]:
    """How a stage ended, for its last event."""
    if found is not None:
        message = f"taken from {found['job_id']}, where it took {found['seconds']:.1f} s"
        return {"status": "reused", "message": message, "job_id": found["job_id"]}
    return {"status": "skipped", "message": stage.skipped} if stage.skipped else _FINISHED


def _key(stage: StagePlan, sharing: Sharing | None) -> str | None:
    """The stage's key, if it is shared. A stage without epochs has nothing to share."""
    if sharing is None or sharing.keys.closed:
        return None
    if stage.reads is None:
        # What it depends on and what it changes is not known, so nothing after it has a key.
        sharing.keys.closed = True
        return None
    key = sharing.keys.of(stage.name, stage.epochs, stage.reads, stage.needs)
    sharing.keys.note(key, stage.gives)
    return key if stage.epochs else None


def _taken(
    stage: StagePlan, key: str | None, at: Position, sharing: Sharing | None, emit: Emit
) -> State | None:
    """Take the stage's result from another job, if one has made it, and add it to the handover.

    Returns:
        What the report says of it; None if this job has to make it.
    """
    if sharing is None or key is None:
        return None
    found = None
    if distributed.is_first():
        told = waiting(stage.name, emit)
        # What was begun is not given up for what another job has begun.
        taken = sharing.shelf.take(key, stage.name, told=told, patient=not at.done)
        field = taken and sharing.read(taken, stage.gives)
        if taken is not None and field is None:
            sharing.shelf.refuse(key, stage.name)
        elif taken is not None:
            found = {"stage": stage.name, "job_id": taken.job_id, "seconds": taken.seconds}
            at.handover.take(stage.gives, field)
            if taken.job_id == sharing.shelf.job_id:
                # An earlier attempt of this job has made it, after its last checkpoint.
                at.handover.seconds = at.handover.stage_began + taken.seconds
            else:
                at.handover.reused.append(found)
    return distributed.from_first(found)


def _put(stage: StagePlan, key: str | None, handover: Handover, sharing: Sharing | None) -> None:
    """Lay the stage's result on the shelf."""
    if sharing is not None and key is not None and distributed.is_first():
        seconds = handover.seconds - handover.stage_began
        write = partial(write_product, handover, stage.gives)
        sharing.shelf.put(key, stage.name, seconds, write)


def _run_stage(
    planned: StagePlan, number: int, at: Position, checkpoints: CheckpointFolder, progress: Progress
) -> None:
    """Run the epochs of a stage that are left, and add its result to the handover."""
    stage, handover = planned.make(at.handover), at.handover
    if at.state is not None:
        stage.restore(at.state)
    for epoch in range(at.done, planned.epochs):
        began = time.monotonic()
        figures = stage.run_epoch(epoch)
        if planned.shared:
            _agree(stage)
        handover.seconds += time.monotonic() - began
        progress.emit({"type": "metric", "stage": planned.name, "epoch": epoch + 1} | figures)
        progress.advance(planned, epoch)
        if distributed.is_first():
            checkpoints.save_if_due(partial(_checkpoint, number, epoch + 1, stage, handover))
    stage.finish(handover)


def _checkpoint(number: int, done: int, stage: Stage, handover: Handover) -> State:
    """A position as tensors and plain values; its keys are the fields of ``Position``."""
    return {"stage": number, "done": done, "state": stage.state(), "handover": handover.state()}


def _from_first(handover: Handover) -> Handover:
    return Handover.from_state(distributed.from_first(handover.state()))


def _agree(stage: Stage) -> None:
    """Take over the first process's state, so that rounding does not lead the processes apart."""
    state = distributed.from_first(stage.state())
    if not distributed.is_first():
        stage.restore(state)
