"""What a sweep's next step is: a pure function of its rows.

So a keeper can look without holding anything, and looks again once it holds the sweep's row: what
another keeper has done meanwhile is then no longer to be done.
"""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime

from jobstore import sweeps
from jobstore.states import TRIAL_AT_WORK, SweepState, TrialState
from jobstore.sweeps import Trial
from jobstore.tables import Document, Sweep
from tuning.goal import SPLIT, TEST, Done, Goal
from tuning.grid import shares, size_of
from tuning.search import Found

# A trial in one of these may still be making what others of the same `shares` need, too.
_SHARED_STAGES = frozenset(
    {
        None,
        "validating",
        "evaluating_upload",
        "robust_training",
        "clean_training",
        "evaluating_dense",
    }
)


@dataclass(frozen=True)
class Launch:
    """A trial that is to become a job, and the trial whose network it starts from."""

    trial: Trial
    start: Trial | None


@dataclass
class Step:
    """What is to be written: trials that have a new state, that begin, that are not to go on.

    `planned` is the next one of a goal. `ends` is how the sweep ends, with its message.
    """

    started_at: datetime | None = None
    told: list[Trial] = field(default_factory=list)
    launches: list[Launch] = field(default_factory=list)
    planned: sweeps.NewTrial | None = None
    stopped: list[Trial] = field(default_factory=list)
    why_stopped: str = ""
    ends: tuple[SweepState, str | None] | None = None

    @property
    def is_due(self) -> bool:
        """Whether there is anything to write."""
        return self != Step()


def next_step(
    sweep: Sweep,
    trials: Sequence[Trial],
    at: datetime,
    hopeless: tuple[Trial, str] | None = None,
) -> Step:
    """Return what is to be done about a sweep that runs, as its rows are `at` this moment.

    `hopeless` is a trial at work that is to be stopped, and why.
    """
    began = [t.job.started_at for t in trials if t.job is not None and t.job.started_at is not None]
    step = Step(told=[trial for trial in trials if trial.state is not trial.row.state])
    if sweep.started_at is None and began:
        step.started_at = min(began)
    why = _why_no_more(sweep, sweep.started_at or step.started_at, at)
    if why is None:
        step.launches = list(_launches(sweep, trials))
    else:
        step.stopped, step.why_stopped = [t for t in trials if _goes_on(t)], why
    if why is None and hopeless is not None and _goes_on(hopeless[0]):
        step.stopped, step.why_stopped = [hopeless[0]], hopeless[1]
    if step.launches or step.stopped or not all(map(_has_ended, trials)):
        return step
    goal = Goal.of(sweep.asked)
    if goal is not None and why is None:
        step.planned = _next_of(goal, sweep, trials)
    if step.planned is None:
        step.ends = _end(sweep, trials, why, goal)
    return step


def _next_of(goal: Goal, sweep: Sweep, trials: Sequence[Trial]) -> sweeps.NewTrial | None:
    """Return the next trial of a goal: one that is tried, or the one that confirms the answer."""
    states = [trial.state for trial in trials]
    if TrialState.FAILED in states and TrialState.SUCCEEDED not in states:
        return None  # What none of them gets over is no matter of sizes.
    done = done_of(trials)
    if any(trial.confirms is not None for trial in done):
        return None
    chosen = goal.decide(done)
    if isinstance(chosen, Found):
        if chosen.best is None or not chosen.holds:
            return None
        row = trials[chosen.best].row
        spec = deepcopy(row.spec)
        spec["evaluation"]["split"] = TEST
        return sweeps.NewTrial(
            spec,
            row.point | {SPLIT: TEST},
            shares(spec),
            denser=row.denser,
            confirms=chosen.best,
            reason=f"confirms trial {chosen.best} on the test split",
        )
    spec, point = goal.spec_of(chosen)
    denser = _denser_of(spec, trials) if sweep.asked["starts"] else None
    return sweeps.NewTrial(spec, point, shares(spec), denser=denser, reason=chosen.reason)


def _denser_of(spec: Document, trials: Sequence[Trial]) -> int | None:
    """Return the sparsest that has succeeded of those that are denser and have no fewer bits."""
    size = size_of(spec)
    denser = [
        (found[1], trial.row.index)
        for trial in trials
        if size is not None
        and trial.state is TrialState.SUCCEEDED
        and (found := size_of(trial.row.spec)) is not None
        and found[1] > size[1]
        and trial.row.spec["target"]["bits"] >= spec["target"]["bits"]
    ]
    return min(denser)[1] if denser else None


def done_of(trials: Sequence[Trial]) -> list[Done]:
    """Return the trials as a goal sees them, once they have ended."""
    return [
        Done(trial.row.index, trial.row.spec, trial.headline, trial.row.confirms)
        for trial in trials
    ]


def _why_no_more(sweep: Sweep, started_at: datetime | None, at: datetime) -> str | None:
    """Return why no trial may go on, None if they may."""
    if sweep.cancel_requested_at is not None:
        return sweeps.CANCELLED
    limit = sweep.time_limit_s
    if limit is None or started_at is None or (at - started_at).total_seconds() < limit:
        return None
    return f"The sweep's time limit of {limit:g} s was reached."


def _goes_on(trial: Trial) -> bool:
    """Tell whether the trial is still to begin, or at work and not asked to end."""
    if trial.state is TrialState.PLANNED:
        return True
    asked = trial.job is not None and trial.job.cancel_requested_at is not None
    return trial.state in TRIAL_AT_WORK and not asked


def _has_ended(trial: Trial) -> bool:
    return trial.state is not TrialState.PLANNED and trial.state not in TRIAL_AT_WORK


def _launches(sweep: Sweep, trials: Sequence[Trial]) -> Iterable[Launch]:
    """Yield the trials that are to begin, densest first.

    A trial waits for the denser one that it starts from, and of several that make the same things
    first, all wait for one of them to have made these.
    """
    room = sweep.max_parallel - sum(trial.state in TRIAL_AT_WORK for trial in trials)
    planned = [trial for trial in trials if trial.state is TrialState.PLANNED]
    made = {trial.row.shares for trial in trials if _has_made(trial)}
    making = {trial.row.shares for trial in trials if trial.state in TRIAL_AT_WORK} - made
    for trial in sorted(planned, key=_density):
        if room <= 0:
            return
        ready, start = _start_of(trial, trials)
        if not ready or trial.row.shares in making:
            continue
        if trial.row.shares not in made:
            making.add(trial.row.shares)
        room -= 1
        yield Launch(trial, start)


def _density(trial: Trial) -> tuple[float, int]:
    size = size_of(trial.row.spec)
    return (-size[1] if size else 0.0), trial.row.index


def _has_made(trial: Trial) -> bool:
    """Tell whether the trial's job is past the stages whose products others can use."""
    job = trial.job
    return job is not None and (
        trial.state is TrialState.SUCCEEDED or job.stage not in _SHARED_STAGES
    )


def _start_of(trial: Trial, trials: Sequence[Trial]) -> tuple[bool, Trial | None]:
    """Return whether the trial may begin, and from which denser one it starts.

    Where its neighbour came to nothing, the neighbour's own denser one is the next that will do.
    """
    denser = trial.row.denser
    while denser is not None:
        found = trials[denser]
        if found.state is TrialState.SUCCEEDED and found.job is not None:
            return True, found
        if not _has_ended(found):
            return False, None
        denser = found.row.denser
    return True, None


def _end(
    sweep: Sweep, trials: Sequence[Trial], why: str | None, goal: Goal | None
) -> tuple[SweepState, str | None]:
    states = [trial.state for trial in trials]
    if sweep.cancel_requested_at is not None:
        return SweepState.CANCELLED, None
    lost = len(states) - states.count(TrialState.SUCCEEDED)
    said = [why] if why else []
    if goal is not None and TrialState.SUCCEEDED in states:
        said.append(goal.conclusion(done_of(trials)))
    elif lost:
        said.append(f"{lost} of {len(states)} trials did not succeed.")
    message = " ".join(said) or None
    if TrialState.SUCCEEDED in states:
        return SweepState.SUCCEEDED, message
    if TrialState.FAILED not in states and why is None:
        return SweepState.CANCELLED, message
    return SweepState.FAILED, message
