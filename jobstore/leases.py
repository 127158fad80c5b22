"""The lease protocol: how a worker holds a job, and why a late one can do no harm.

A claim raises the job's `attempt`, writes the owner and the lease's end by the database's clock.
Every later write of that run first locks the row and checks `(job, attempt, owner)`; when they no
longer hold it raises `LeaseLost` and changes nothing. A lease that has run out is taken away only
by `sweep`, so a worker that was merely slow may still renew it until then.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ScalarSelect, exists, func, or_, select, update
from sqlalchemy.orm import Session

from jobstore import metrics
from jobstore.dialects import clock, lock_claims, now
from jobstore.errors import LeaseLost
from jobstore.events import (
    EventType,
    NewEvent,
    append_event,
    append_state_event,
    attempt_began,
    change_state,
)
from jobstore.states import ACTIVE, FINAL, JobState
from jobstore.tables import AT_WORK, DEFAULT_TENANT, WAITING, Artifact, Document, Job, Tenant
from jobstore.workers import Offer, forget_lost, queue_of

WORKER_LOST = "worker_lost"
VALIDATING_STAGE = "validating"
ON_CPU = Offer()

_PROGRESS_FIELDS = ("stage", "epoch", "epochs", "progress", "eta_s")


@dataclass(frozen=True)
class Attempt:
    """The fencing token: one claim of one job by one worker; `tenant`, `trace_id` are for logs."""

    job_id: str
    number: int
    owner: str
    tenant: str = field(default=DEFAULT_TENANT, compare=False)
    trace_id: str | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"{self.job_id} attempt {self.number}"

    @property
    def ids(self) -> dict[str, object]:
        """The fields of a log record on this attempt: `extra=attempt.ids`."""
        ids = {"job": self.job_id, "attempt": self.number, "tenant": self.tenant}
        return ids if self.trace_id is None else ids | {"trace_id": self.trace_id}


@dataclass(frozen=True)
class JobError:
    """Why a job or an attempt failed: a stable `code`, a sentence, and the field at fault."""

    code: str
    message: str
    param: str | None = None


@dataclass(frozen=True)
class LeaseState:
    """The answer to a renewal."""

    cancel_requested: bool


@dataclass(frozen=True)
class NewArtifact:
    """A result whose blob is stored."""

    name: str
    media_type: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Lost:
    """An attempt whose lease ran out, when it began, and its job as the sweep left it."""

    attempt: Attempt
    began_at: datetime
    job: Job


@dataclass
class Swept:
    """What a sweep moved: the jobs' ids by their new state, and the attempts that were lost.

    `waiting` says how many jobs wait now, by their wake-ups' queue.
    """

    requeued: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    waiting: dict[str, int] = field(default_factory=dict)


def claim(
    session: Session,
    owner: str,
    *,
    lease_s: float,
    offer: Offer = ON_CPU,
    max_running_jobs: int | None = None,
) -> tuple[Job, Attempt] | None:
    """Take the job that `next_job` says for `lease_s` seconds; None if nothing waits that may run.

    One claim at a time, so that each counts what the others took.
    """
    lock_claims(session)
    statement = (
        update(Job)
        .where(Job.id == next_job(offer, max_running_jobs))
        .values(
            state=JobState.VALIDATING,
            attempt=Job.attempt + 1,
            reported=0,
            owner=owner,
            lease_expires_at=clock(lease_s),
            started_at=func.coalesce(Job.started_at, clock()),
        )
        .returning(Job)
    )
    options = {"synchronize_session": False, "populate_existing": True}
    job = session.scalars(statement, execution_options=options).one_or_none()
    if job is None:
        return None
    served = update(Tenant).where(Tenant.id == job.tenant_id).values(served_at=clock())
    session.execute(served, execution_options={"synchronize_session": False})
    append_state_event(session, job)
    session.flush()
    return job, _attempt(job, owner)


def next_job(offer: Offer, max_running_jobs: int | None) -> ScalarSelect[str]:
    """Return the choice of the next job's id, of those that suit the offer.

    It is a job of the tenant with the fewest at work, of several the one that was served longest
    ago; of that tenant the one with the highest priority, of several the oldest. So however many
    jobs a tenant has queued, another's first waits for one of them at most. A tenant with
    `max_running_jobs` at work, or as many as its own limit says, has to wait. What has ended is not
    looked at: the indexes lead past it.
    """
    return (
        select(Job.id)
        .where(WAITING, offer.suitable(), Job.tenant_id == _next_tenant(offer, max_running_jobs))
        .order_by(Job.rank, Job.id)
        .limit(1)
        # A cancel may hold the row.
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )


def _next_tenant(offer: Offer, max_running_jobs: int | None) -> ScalarSelect[str]:
    """Return the choice of the tenant whose turn it is among those with a suitable waiting job."""
    at_work = select(func.count()).where(AT_WORK, Job.tenant_id == Tenant.id).scalar_subquery()
    limit = func.coalesce(Tenant.max_running_jobs, max_running_jobs)
    return (
        select(Tenant.id)
        .where(
            exists().where(WAITING, offer.suitable(), Job.tenant_id == Tenant.id),
            or_(limit.is_(None), at_work < limit),
        )
        .order_by(at_work, Tenant.served_at.asc().nulls_first(), Tenant.id)
        .limit(1)
        .scalar_subquery()
    )


def renew(session: Session, attempt: Attempt, *, lease_s: float, run_seconds: float) -> LeaseState:
    """Hold the job for another `lease_s` seconds; `run_seconds` is what it has run in all attempts.

    Raises `LeaseLost`.
    """
    job = hold(session, attempt)
    job.lease_expires_at = now(session, lease_s)
    job.run_seconds = run_seconds
    return LeaseState(cancel_requested=job.cancel_requested_at is not None)


def look(session: Session, attempt: Attempt) -> LeaseState:
    """Return whether a cancel was requested, without renewing or locking; raises `LeaseLost`."""
    row = session.execute(select(Job.cancel_requested_at).where(*_held_by(attempt))).one_or_none()
    if row is None:
        raise LeaseLost(str(attempt))
    return LeaseState(cancel_requested=row.cancel_requested_at is not None)


def report(
    session: Session, attempt: Attempt, events: Sequence[NewEvent], *, first: int | None = None
) -> None:
    """Append what the run told, and let the job's stage, progress and state follow from it.

    `first` is the number of the first of them in the attempt, from 0: those that are there already,
    and are told again because an answer was lost, are left out; without it all are new.

    Raises `LeaseLost`, and KeyError for an event that lacks a field that docs/interfaces/events.md
    gives it.
    """
    job = hold(session, attempt)
    if first is not None:
        events = events[max(0, job.reported - first) :]
    job.reported += len(events)
    for event in events:
        append_event(session, job, event)
        if event.type is EventType.PROGRESS:
            for name in _PROGRESS_FIELDS:
                setattr(job, name, event.data[name])
        elif event.type in (EventType.STAGE, EventType.RESUMED):
            _enter_stage(session, job, event)


def set_checkpoint(session: Session, attempt: Attempt, key: str) -> str | None:
    """Name the stored checkpoint the next attempt resumes from.

    The one before it is kept in case this one turns out broken. Returns the key of the one before
    those two, whose object the caller should delete. Raises `LeaseLost`.
    """
    job = hold(session, attempt)
    if job.checkpoint_key == key:
        return None  # The caller repeats itself, because the first answer was lost.
    replaced = job.previous_checkpoint_key
    job.previous_checkpoint_key, job.checkpoint_key = job.checkpoint_key, key
    return replaced


def release(session: Session, attempt: Attempt) -> JobState:
    """Give the job back unfinished, at no cost to its attempts; returns its new state.

    Raises `LeaseLost`.
    """
    job = hold(session, attempt)
    return _end_attempt(session, job)


def release_unknown(session: Session, owner: str) -> None:
    """Give back what an idle worker holds without knowing: the answer to its claim was lost."""
    held = select(Job).where(AT_WORK, Job.owner == owner).with_for_update()
    for job in session.scalars(held):
        _end_attempt(session, job)
    session.flush()


def fail_attempt(session: Session, attempt: Attempt, error: JobError) -> JobState:
    """End an attempt that crashed: queued again, or failed with `error` after `max_attempts`.

    Returns the new state; raises `LeaseLost`.
    """
    job = hold(session, attempt)
    return _fail_attempt(session, job, error)


def finish(
    session: Session,
    attempt: Attempt,
    state: JobState,
    *,
    headline: Document | None = None,
    artifacts: Iterable[NewArtifact] = (),
    error: JobError | None = None,
) -> list[str]:
    """End the job: succeeded with its headline and artifacts, failed with an error, or cancelled.

    One that has succeeded forgets its checkpoints; their keys are returned, and the caller should
    delete the objects. If this answer is lost, `jobstore.retention` finds them an hour later. The
    others keep them for a retry, as long as their tenant's terms say.

    The headline is kept as it is. Raises `LeaseLost`, and ValueError when the state does not go
    with what is given.
    """
    if state not in FINAL or (headline is not None) != (state is JobState.SUCCEEDED):
        raise ValueError(f"a job does not finish {state} with headline {headline!r}")
    if (error is not None) != (state is JobState.FAILED):
        raise ValueError(f"a job does not finish {state} with error {error!r}")
    job = hold(session, attempt)
    if headline is not None:
        job.headline = headline
        job.progress = 1.0
    if error is not None:
        _append_error(session, job, error)
        _set_error(job, error)
    forgotten = job.forget_checkpoints() if state is JobState.SUCCEEDED else []
    for new in artifacts:
        session.add(Artifact(tenant_id=job.tenant_id, job_id=job.id, **vars(new)))
    _finish(session, job, state)
    return forgotten


def fail_waiting(session: Session, job: Job, error: JobError) -> None:
    """Fail a queued job that is locked, and that no worker could ever take.

    The state machine has no arrow for that, so it counts as taken up, by nobody's worker.
    """
    # The clock is asked first, because asking flushes, and the row is to be written at once.
    job.lease_expires_at = now(session)
    job.attempt, job.owner = job.attempt + 1, "inputs"
    change_state(session, job, JobState.VALIDATING)
    session.flush()
    _append_error(session, job, error)
    _set_error(job, error)
    _finish(session, job, JobState.FAILED)
    session.flush()


def sweep(session: Session) -> Swept:
    """End the attempts whose lease has run out, as `fail_attempt` with `worker_lost` does.

    Any number of sweeps may run at once. Send wake-ups for what waits after the commit.
    """
    swept = Swept()
    lost = (
        select(Job)
        .where(AT_WORK, Job.lease_expires_at < clock())
        .order_by(Job.id)
        .with_for_update(skip_locked=True)
    )
    lists = {
        JobState.QUEUED: swept.requeued,
        JobState.FAILED: swept.failed,
        JobState.CANCELLED: swept.cancelled,
    }
    for job in session.scalars(lost):
        message = f"the worker {job.owner} was lost in attempt {job.attempt}"
        metrics.count(session, metrics.LEASES_LOST)
        attempt, began_at = _attempt(job, str(job.owner)), attempt_began(session, job)
        lists[_fail_attempt(session, job, JobError(WORKER_LOST, message))].append(job.id)
        swept.lost.append(Lost(attempt, began_at, job))
    forget_lost(session)
    session.flush()
    waiting = (
        select(Job.device, Job.gpus, func.count())
        .where(WAITING, Job.awaits_inputs.is_(False))
        .group_by(Job.device, Job.gpus)
    )
    for device, gpus, count in session.execute(waiting):
        swept.waiting[queue_of(device, gpus)] = count
    return swept


def _attempt(job: Job, owner: str) -> Attempt:
    return Attempt(job.id, job.attempt, owner, job.tenant_id, job.trace_id)


def _held_by(attempt: Attempt) -> tuple[Any, ...]:
    return (
        Job.id == attempt.job_id,
        Job.attempt == attempt.number,
        Job.owner == attempt.owner,
        Job.state.in_(ACTIVE),
    )


def hold(session: Session, attempt: Attempt) -> Job:
    """Lock the attempt's job for this transaction, or raise `LeaseLost`."""
    query = select(Job).where(*_held_by(attempt)).with_for_update()
    job = session.scalars(query, execution_options={"populate_existing": True}).one_or_none()
    if job is None:
        raise LeaseLost(str(attempt))
    return job


def _enter_stage(session: Session, job: Job, event: NewEvent) -> None:
    stage, at = event.data["stage"], event.time or now(session)
    if stage != job.stage:
        # The epochs are a stage's own.
        job.stage, job.epoch, job.epochs = stage, None, None
        job.stage_started_at = at
    if stage != VALIDATING_STAGE and job.state is JobState.VALIDATING:
        change_state(session, job, JobState.RUNNING)
    if event.data.get("status") == "finished" and job.stage_started_at is not None:
        seconds = (at - job.stage_started_at).total_seconds()
        metrics.observe(session, metrics.STAGE_SECONDS, seconds, stage=stage)


def _fail_attempt(session: Session, job: Job, error: JobError) -> JobState:
    job.failed_attempts += 1
    _append_error(session, job, error)
    if job.cancel_requested_at is not None or job.failed_attempts < job.max_attempts:
        return _end_attempt(session, job)
    _set_error(job, error)
    _finish(session, job, JobState.FAILED)
    return job.state


def _end_attempt(session: Session, job: Job) -> JobState:
    # A job that was to be cancelled must not run again because its worker went away first.
    if job.cancel_requested_at is not None:
        _finish(session, job, JobState.CANCELLED)
    else:
        job.queued_at = now(session)
        change_state(session, job, JobState.QUEUED)
        job.owner = job.lease_expires_at = job.eta_s = None
    return job.state


def _finish(session: Session, job: Job, state: JobState) -> None:
    # The clock is asked first, because asking flushes, and the row is to be written only once.
    job.finished_at = now(session)
    if job.started_at is not None:
        seconds = (job.finished_at - job.started_at).total_seconds()
        metrics.observe(session, metrics.JOB_SECONDS, seconds, state=state.value)
    change_state(session, job, state)
    job.owner = job.lease_expires_at = job.eta_s = None


def _append_error(session: Session, job: Job, error: JobError) -> None:
    append_event(session, job, NewEvent(EventType.ERROR, vars(error).copy()))


def _set_error(job: Job, error: JobError) -> None:
    job.error_code, job.error_message, job.error_param = error.code, error.message, error.param
