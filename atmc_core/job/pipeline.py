"""A run as a row of stages, each a number of steps, between which it can be resumed."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from atmc_core.events import Emit
from atmc_core.job.checkpoint import CheckpointFolder
from atmc_core.training import distributed

#: Tensors and plain values that one stage leaves for the next, and for a checkpoint.
Carry = dict[str, Any]

_FINISHED = {"status": "finished"}


class Stage(ABC):
    """One stage at work."""

    @abstractmethod
    def step(self, index: int) -> dict[str, float]:
        """Do step ``index`` and return figures worth showing."""

    @abstractmethod
    def finish(self, carry: Carry) -> None:
        """Leave the result for the stages that follow."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """All that ``restore`` needs to go on after the last step."""

    @abstractmethod
    def restore(self, state: dict[str, Any]) -> None:
        """Go on from ``state``, which may hold tensors on the CPU."""


@dataclass(frozen=True)
class Plan:
    """A stage before it starts: how long it is, and how to make it from what came before.

    Attributes:
        cost: of one step, or of each of them in turn, in the same arbitrary unit for all stages
            (say, passes over an image).
        skipped: why it has no steps though one might expect some; its last event tells.
        shared: all of the job's processes take part; in any other stage only the first works.
    """

    name: str
    steps: int
    cost: float | Sequence[float]
    make: Callable[[Carry], Stage]
    skipped: str | None = None
    shared: bool = False

    def cost_of(self, first: int, last: int) -> float:
        """Of the steps from ``first`` up to, not including, ``last``."""
        if isinstance(self.cost, Sequence):
            return sum(self.cost[first:last])
        return (last - first) * self.cost


class Progress:
    """Turns steps done into a share of the whole and a time to go."""

    def __init__(self, plans: Sequence[Plan], emit: Emit) -> None:
        self.total = sum(plan.cost_of(0, plan.steps) for plan in plans) or 1.0
        self.done = 0.0
        self.emit = emit
        self._worked = 0.0
        self._started = time.monotonic()

    def skip(self, plan: Plan, steps: int) -> None:
        """Count steps that an earlier attempt did."""
        self.done += plan.cost_of(0, steps)

    def advance(self, plan: Plan, step: int) -> None:
        """Count one step done, and say so."""
        cost = plan.cost_of(step, step + 1)
        self.done += cost
        self._worked += cost
        # Not known as long as this attempt has only done steps that cost nothing.
        pace = (time.monotonic() - self._started) / self._worked if self._worked else None
        self.emit(
            {
                "type": "progress",
                "stage": plan.name,
                "epoch": step + 1,
                "epochs": plan.steps,
                "progress": min(1.0, self.done / self.total),
                "eta_s": None if pace is None else max(0.0, self.total - self.done) * pace,
            }
        )


@dataclass(frozen=True)
class Saved:
    """Where an earlier attempt got to: ``done`` steps of stage number ``stage``."""

    stage: int
    done: int
    state: dict[str, Any]
    carry: Carry


def resume(checkpoints: CheckpointFolder, emit: Emit) -> Saved | None:
    """What the newest readable checkpoint holds; warns of those that cannot be read."""
    saved, broken = distributed.from_first(checkpoints.load())
    for name in broken:
        emit({"type": "warning", "code": "broken_checkpoint", "message": f"skipped {name}"})
    return Saved(**saved) if saved is not None else None


def run_stages(
    plans: Sequence[Plan],
    carry: Carry,
    saved: Saved | None,
    checkpoints: CheckpointFolder,
    emit: Emit,
) -> Carry:
    """Run all stages in turn, from ``saved`` on if there is something.

    ``carry["seconds"]`` adds up the time spent, over all attempts.

    Returns:
        What the last stage left.
    """
    first, done, state = 0, 0, None
    if saved is not None:
        first, done, state, carry = saved.stage, saved.done, saved.state, saved.carry
        emit({"type": "resumed", "stage": plans[first].name, "epoch": done})
    progress = Progress(plans, emit)
    for plan in plans[:first]:
        progress.skip(plan, plan.steps)
    for index, plan in enumerate(plans[first:], start=first):
        emit({"type": "stage", "stage": plan.name, "status": "started"})
        progress.skip(plan, done)
        if plan.shared or distributed.is_first():
            stage = plan.make(carry)
            if state is not None:
                stage.restore(state)
            for step in range(done, plan.steps):
                began = time.monotonic()
                figures = stage.step(step)
                if plan.shared:
                    _agree(stage)
                carry["seconds"] = carry.get("seconds", 0.0) + time.monotonic() - began
                emit({"type": "metric", "stage": plan.name, "epoch": step + 1} | figures)
                progress.advance(plan, step)
                if distributed.is_first():
                    checkpoints.save_if_due(partial(_saved, index, step + 1, stage, carry))
            stage.finish(carry)
        carry = distributed.from_first(carry)
        done, state = 0, None
        ended = {"status": "skipped", "message": plan.skipped} if plan.skipped else _FINISHED
        emit({"type": "stage", "stage": plan.name} | ended)
    return carry


def _saved(index: int, done: int, stage: Stage, carry: Carry) -> dict[str, Any]:
    return {"stage": index, "done": done, "state": stage.state(), "carry": carry}


def _agree(stage: Stage) -> None:
    """Take over the first process's state: rounding must not lead them apart."""
    state = distributed.from_first(stage.state())
    if not distributed.is_first():
        stage.restore(state)
