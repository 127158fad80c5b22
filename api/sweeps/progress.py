"""How far a sweep has come, and what came of it so far."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from jobstore.states import SweepState, TrialState
from jobstore.sweeps import Trial
from jobstore.tables import Sweep
from tuning import front
from tuning.goal import Done, Goal

_ENDED = frozenset(
    {TrialState.SUCCEEDED, TrialState.FAILED, TrialState.CANCELLED, TrialState.SKIPPED}
)
_AHEAD = frozenset({TrialState.PLANNED, TrialState.QUEUED})


@dataclass(frozen=True)
class Progress:
    """What a sweep's trials amount to; the fields are those of the API's answer."""

    progress: float
    eta_s: float | None
    seconds: float | None
    front: list[int]
    best: int | None

    @classmethod
    def of(cls, sweep: Sweep, trials: Sequence[Trial], at: datetime) -> Self:
        """Judge by the rows, as they are `at` this moment."""
        # What confirms another is that one on other images.
        headlines = {
            trial.row.index: trial.headline
            for trial in trials
            if trial.headline is not None and trial.row.confirms is None
        }
        goal = Goal.of(sweep.asked)
        running = sweep.state is SweepState.RUNNING
        return cls(
            progress=_share(sweep, trials) if running else 1.0,
            eta_s=_eta(sweep, trials, at) if running else None,
            seconds=_seconds(sweep, at),
            front=front.front(headlines),
            best=goal.best(done(trials)) if goal else front.best(headlines),
        )


def done(trials: Sequence[Trial]) -> list[Done]:
    """Return what has become of the trials that have ended."""
    ended = [trial for trial in trials if trial.state in _ENDED]
    return [Done(t.row.index, t.row.spec, t.headline, t.row.confirms) for t in ended]


def _planned(sweep: Sweep, trials: Sequence[Trial]) -> int:
    """Return how many trials there will be; of a goal, at most."""
    return max(len(trials), sweep.asked.get("trial_limit") or 0, 1)


def _share(sweep: Sweep, trials: Sequence[Trial]) -> float:
    done = (1.0 if t.state in _ENDED else t.job.progress if t.job else 0.0 for t in trials)
    return sum(done) / _planned(sweep, trials)


def _seconds(sweep: Sweep, at: datetime) -> float | None:
    if sweep.started_at is None:
        return None
    return max(0.0, ((sweep.finished_at or at) - sweep.started_at).total_seconds())


def _eta(sweep: Sweep, trials: Sequence[Trial], at: datetime) -> float | None:
    """Return seconds to the end, if the trials that are ahead take as long as those so far."""
    lasting, left, at_work = [], 0.0, 0
    for trial in trials:
        job = trial.job
        if job is None or job.started_at is None:
            continue
        if job.finished_at is not None:
            if trial.state is TrialState.SUCCEEDED:
                lasting.append((job.finished_at - job.started_at).total_seconds())
        elif job.eta_s is not None:
            at_work += 1
            left += job.eta_s
            lasting.append((at - job.started_at).total_seconds() + job.eta_s)
    ahead = sum(trial.state in _AHEAD for trial in trials)
    ahead += _planned(sweep, trials) - len(trials)
    if not lasting:
        return None
    return (left + ahead * sum(lasting) / len(lasting)) / max(1, at_work)
