"""Sweeps as a user sees them: create, read, list, cancel; their trials and events.

`keeper.trials` advances them. Whatever changes a sweep or one of its trials holds the sweep's row
(`hold_sweep`) until its transaction ends, so one at a time does.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.orm import Session

from jobstore import jobs, traces
from jobstore.cursors import decode_id, encode_cursor
from jobstore.dialects import now
from jobstore.errors import NotFound
from jobstore.ids import new_sweep_id
from jobstore.jobs import Head
from jobstore.states import TRIAL_AT_WORK, SweepState, TrialState
from jobstore.tables import (
    UNDER_WAY,
    Dataset,
    Document,
    Job,
    Model,
    Sweep,
    SweepEvent,
    SweepTrial,
)
from jobstore.webhooks import NewWebhook, create_webhook, tell_sweep

ID_PREFIX = "sweep_"

CANCELLED = "The sweep was cancelled."


@dataclass(frozen=True)
class NewTrial:
    """A trial to plan; the fields are those of `SweepTrial`."""

    spec: Document
    point: Document
    shares: str
    denser: int | None = None
    confirms: int | None = None
    reason: str | None = None


@dataclass(frozen=True)
class NewSweep:
    """A sweep to make; the fields are those of `Sweep`."""

    asked: Document
    max_parallel: int
    name: str | None = None
    priority: int = 0
    device: str | None = None
    gpus: int = 0
    time_limit_s: float | None = None
    trial_time_limit_s: float | None = None


@dataclass(frozen=True)
class Trial:
    """A trial as it is now: its row, and its job's if it has one."""

    row: SweepTrial
    job: Job | None

    @property
    def headline(self) -> Document | None:
        """Its figures, once it has succeeded."""
        return None if self.job is None else self.job.headline

    @property
    def state(self) -> TrialState:
        """The job's state, if there is a job; the row follows it with some delay."""
        return self.row.state if self.job is None else TrialState(self.job.state.value)


@dataclass(frozen=True)
class SweepPage:
    """Some sweeps, the trials of each, and the cursor of those after them (None: no more)."""

    sweeps: Sequence[Sweep]
    trials: dict[str, list[Trial]] = field(default_factory=dict)
    next: str | None = None


def create_sweep(
    session: Session,
    new: NewSweep,
    model: Model,
    dataset: Dataset,
    trials: Sequence[NewTrial],
    webhook: NewWebhook | None = None,
) -> Sweep:
    """Begin a sweep on a model and a data set that this transaction made or holds (`uploads`).

    No trial is a job yet: that is the keeper's to do.
    """
    sweep = Sweep(
        id=new_sweep_id(),
        name=new.name,
        model_id=model.id,
        dataset_id=dataset.id,
        asked=new.asked,
        state=SweepState.RUNNING,
        rank=-new.priority,
        device=new.device,
        gpus=new.gpus,
        max_parallel=new.max_parallel,
        time_limit_s=new.time_limit_s,
        trial_time_limit_s=new.trial_time_limit_s,
        trace=traces.current().carrier(),
        last_event_seq=0,
    )
    session.add(sweep)
    session.flush()
    if webhook is not None:
        create_webhook(session, webhook, sweep=sweep)
    _append(session, sweep, "sweep", {"state": sweep.state.value})
    for index, trial in enumerate(trials):
        plan_trial(session, sweep, trial, index)
    session.flush()
    return sweep


def plan_trial(session: Session, sweep: Sweep, new: NewTrial, index: int) -> SweepTrial:
    """Add the next trial to a sweep that is held, or new."""
    row = SweepTrial(
        tenant_id=sweep.tenant_id,
        sweep_id=sweep.id,
        index=index,
        state=TrialState.PLANNED,
        **vars(new),
    )
    session.add(row)
    return row


def get_sweep(session: Session, sweep_id: str) -> Sweep:
    """Return the sweep; raises `NotFound`."""
    sweep = session.get(Sweep, sweep_id)
    if sweep is None:
        raise NotFound("sweep", sweep_id)
    return sweep


def hold_sweep(session: Session, sweep_id: str) -> Sweep:
    """Return the sweep, which nobody else changes before this transaction ends.

    Raises `NotFound`.
    """
    sweep = session.get(Sweep, sweep_id, with_for_update=True, populate_existing=True)
    if sweep is None:
        raise NotFound("sweep", sweep_id)
    return sweep


def list_sweeps(
    session: Session,
    *,
    state: SweepState | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> SweepPage:
    """Return a page of sweeps, newest first; `cursor` is the `next` of the page before.

    Raises `InvalidCursor`.
    """
    query = select(Sweep).order_by(Sweep.id.desc()).limit(limit + 1)
    if state is not None:
        query = query.where(Sweep.state == state)
    if cursor is not None:
        query = query.where(Sweep.id < decode_id(cursor, ID_PREFIX))
    found = session.scalars(query).all()
    page = found[:limit]
    trials = trials_of(session, [sweep.id for sweep in page])
    return SweepPage(page, trials, encode_cursor(page[-1].id) if len(found) > limit else None)


def list_trials(session: Session, sweep_id: str) -> list[Trial]:
    """Return the sweep's trials in order."""
    return trials_of(session, [sweep_id])[sweep_id]


def trials_of(session: Session, sweep_ids: Collection[str]) -> dict[str, list[Trial]]:
    """Return the trials of each of the sweeps in order, in one query."""
    query = (
        select(SweepTrial, Job)
        .outerjoin(Job, Job.id == SweepTrial.job_id)
        .where(SweepTrial.sweep_id.in_(sweep_ids))
        .order_by(SweepTrial.sweep_id, SweepTrial.index)
        .execution_options(populate_existing=True)
    )
    trials: dict[str, list[Trial]] = defaultdict(list)
    for row, job in session.execute(query):
        trials[row.sweep_id].append(Trial(row, job))
    return trials


def under_way(session: Session) -> list[tuple[str, str]]:
    """Return the sweeps that run, oldest first, each with its tenant."""
    query = select(Sweep.id, Sweep.tenant_id).where(UNDER_WAY).order_by(Sweep.id)
    return [(row.id, row.tenant_id) for row in session.execute(query)]


def heads_of(session: Session, sweep_ids: Collection[str]) -> dict[str, Head]:
    """Return the heads of those of the sweeps that there are, by id, in one query."""
    query = select(Sweep.id, Sweep.state, Sweep.last_event_seq).where(Sweep.id.in_(sweep_ids))
    return {row.id: Head(row.state, row.last_event_seq) for row in session.execute(query)}


def list_events(
    session: Session, sweep_id: str, *, after: int = 0, limit: int = 1000
) -> list[SweepEvent]:
    """Return up to `limit` events of the sweep with a number above `after`, oldest first."""
    query = select(SweepEvent).where(SweepEvent.sweep_id == sweep_id, SweepEvent.seq > after)
    return list(session.scalars(query.order_by(SweepEvent.seq).limit(limit)))


def request_cancel(session: Session, sweep_id: str) -> Sweep:
    """Ask every trial to end, and begin no more; leave a sweep that has ended alone.

    It is cancelled once all its trials have ended. Raises `NotFound`.
    """
    sweep = hold_sweep(session, sweep_id)
    if sweep.state is SweepState.RUNNING and sweep.cancel_requested_at is None:
        sweep.cancel_requested_at = now(session)
        stop_trials(session, sweep, list_trials(session, sweep_id), CANCELLED)
    session.flush()
    return sweep


def stop_trials(session: Session, sweep: Sweep, trials: Sequence[Trial], reason: str) -> None:
    """Skip those of a held sweep's trials that are planned, and cancel those that are at work."""
    for trial in trials:
        if trial.state is TrialState.PLANNED:
            tell_trial(session, sweep, trial.row, TrialState.SKIPPED, reason)
        elif trial.job is not None and trial.state in TRIAL_AT_WORK:
            trial.row.reason = reason
            jobs.request_cancel(session, trial.job.id)


def tell_trial(
    session: Session,
    sweep: Sweep,
    trial: SweepTrial,
    state: TrialState,
    reason: str | None = None,
) -> None:
    """Write down a new state of a held sweep's trial, and why, in its row and as an event."""
    trial.state, trial.reason = state, reason or trial.reason
    data = {
        "index": trial.index,
        "job_id": trial.job_id,
        "state": state.value,
        "reason": trial.reason,
    }
    _append(session, sweep, "trial", data)


def end_sweep(session: Session, sweep: Sweep, state: SweepState, message: str | None) -> None:
    """End a held sweep, and tell its webhooks."""
    # The clock is asked first, because asking flushes, and the row is to be written only once.
    sweep.finished_at = now(session)
    sweep.state, sweep.message = state, message
    _append(session, sweep, "sweep", {"state": state.value, "message": message})
    tell_sweep(session, sweep)


def _append(session: Session, sweep: Sweep, type: str, data: Document) -> None:
    sweep.last_event_seq += 1
    row = SweepEvent(
        tenant_id=sweep.tenant_id,
        sweep_id=sweep.id,
        seq=sweep.last_event_seq,
        type=type,
        data=data,
    )
    session.add(row)
