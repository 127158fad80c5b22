"""Jobs as a user sees them: create, read, list, cancel, retry. A worker's side is in `leases`."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, TextClause, and_, bindparam, func, select
from sqlalchemy.orm import Session

from jobstore import traces
from jobstore.dialects import estimate_by, now
from jobstore.errors import NotFound
from jobstore.events import append_state_event, change_state, state_event
from jobstore.ids import new_job_id
from jobstore.labels import set_labels
from jobstore.listing import ALL, Which, page_of
from jobstore.starts import Start
from jobstore.states import ACTIVE, FINAL, FileState, JobState, SweepState, check_retry
from jobstore.tables import AT_WORK, WAITING, Dataset, Document, Job, Model, SweepTrial
from jobstore.uploads import hold_uploads
from jobstore.webhooks import NewWebhook, create_webhook, tell_state
from jobstore.workers import queue_of


@dataclass(frozen=True)
class Page:
    """Some jobs, and the cursor of those after them (None: there are no more)."""

    jobs: Sequence[Job]
    next: str | None


def create_job(
    session: Session,
    *,
    spec: dict[str, Any],
    model: Model,
    dataset: Dataset,
    max_attempts: int,
    time_limit_s: float,
    name: str | None = None,
    labels: dict[str, str] | None = None,
    metadata: Document | None = None,
    priority: int = 0,
    device: str | None = None,
    gpus: int = 0,
    webhook: NewWebhook | None = None,
    start: Start | None = None,
    sweep_id: str | None = None,
    trace: Document | None = None,
) -> Job:
    """Queue a job on a model and a data set that this transaction made or holds (`uploads`).

    `start` is what it starts from instead of the upload, which this transaction holds (`starts`).

    It belongs to `trace`, or to that of the request at hand. Once the transaction has committed,
    send a wake-up (`jobstore.wakeups.wake`).
    """
    job = Job(
        id=new_job_id(),
        name=name,
        labels={},
        notes=metadata or {},
        spec=spec,
        model_id=model.id,
        dataset_id=dataset.id,
        start_from=start and start.job_id,
        start_sha256=start and start.sha256,
        rank=-priority,
        device=device,
        gpus=gpus,
        state=JobState.QUEUED,
        attempt=0,
        max_attempts=max_attempts,
        time_limit_s=time_limit_s,
        last_event_seq=0,
        trace=trace or traces.current().carrier(),
        sweep_id=sweep_id,
        awaits_inputs=_await_inputs(model, dataset),
    )
    # The event that says so is numbered before the row is written, so that it is written once.
    queued = state_event(job)
    session.add(job)
    session.flush()
    if labels:
        set_labels(session, job, labels)
    if webhook is not None:
        create_webhook(session, webhook, job)
    session.add(queued)
    tell_state(session, job)
    session.flush()
    return job


def _await_inputs(*inputs: Model | Dataset) -> bool:
    return any(each.state == FileState.FETCHING for each in inputs)


def get_job(session: Session, job_id: str) -> Job:
    """Return the job; raises `NotFound`."""
    job = session.scalars(_JOB, {"id": job_id}).one_or_none()
    if job is None:
        raise NotFound("job", job_id)
    return job


def lock_job(session: Session, job_id: str) -> Job:
    """Return the job, which nobody else changes before this ends; raises `NotFound`."""
    job = session.get(Job, job_id, with_for_update=True, populate_existing=True)
    if job is None:
        raise NotFound("job", job_id)
    return job


# The query is built once, because building takes as long as asking.
_JOB = select(Job).where(Job.id == bindparam("id"))


@dataclass(frozen=True)
class Head:
    """Progress of a job or sweep in two words: its state, the number of its newest event."""

    state: JobState | SweepState
    last_event_seq: int


def heads_of(session: Session, job_ids: Collection[str]) -> dict[str, Head]:
    """Return the heads of those of the jobs that there are, by id, in one query."""
    query = select(Job.id, Job.state, Job.last_event_seq).where(Job.id.in_(job_ids))
    return {row.id: Head(row.state, row.last_event_seq) for row in session.execute(query)}


def count_by_state(session: Session) -> dict[JobState, int]:
    """Return how many jobs are in each state; those without any are left out.

    Of a large table on PostgreSQL the ended ones are estimated (`dialects.estimate_by`).
    """
    counts: dict[JobState, int] = {}
    by_state = select(Job.state, func.count()).group_by(Job.state)
    estimated = estimate_by(session, Job.state)
    counted: list[TextClause | ColumnElement[bool]] = [WAITING, AT_WORK]
    if estimated is None:
        counted.append(Job.state.in_(FINAL))
    else:
        counts = {state: estimated.get(state.value, 0) for state in FINAL}
    for condition in counted:
        for state, count in session.execute(by_state.where(condition)):
            counts[state] = count
    return counts


@dataclass(frozen=True)
class Queue:
    """How many jobs wait, and for how many seconds the oldest of them has."""

    depth: int
    oldest_s: float


def queues(session: Session) -> dict[str, Queue]:
    """Return what waits, by queue."""
    waiting = (
        select(Job.device, Job.gpus, func.count(), func.min(Job.queued_at))
        .where(WAITING)
        .group_by(Job.device, Job.gpus)
    )
    moment = now(session)
    return {queue_of(None, 0): Queue(0, 0.0)} | {
        queue_of(device, gpus): Queue(depth, (moment - (oldest or moment)).total_seconds())
        for device, gpus, depth, oldest in session.execute(waiting)
    }


def list_jobs(
    session: Session,
    which: Which = ALL,
    *,
    state: JobState | None = None,
    method: str | None = None,
    q: str | None = None,
    sweep_id: str | None = None,
) -> Page:
    """Return a page of jobs (of a sweep), in the order that `which` says.

    `q` is a part of the name or of the id, in small or capital letters. Raises `InvalidCursor`.
    """
    query = select(Job)
    if state is not None:
        query = query.where(Job.state == state)
    if method is not None:
        query = query.where(Job.spec["method"].as_string() == method)
    if q is not None:
        named = func.lower(Job.name).contains(q.lower(), autoescape=True)
        query = query.where(named | Job.id.contains(q.lower(), autoescape=True))
    if sweep_id is not None:
        trials = select(SweepTrial.job_id).where(SweepTrial.sweep_id == sweep_id)
        query = query.where(Job.id.in_(trials))
    return Page(*page_of(session, query, Job, "job_", which))


def changed_jobs(session: Session, since: datetime) -> Sequence[Job]:
    """Return the jobs that are at work, and those that were queued or have ended since then.

    Each condition has an index of its own, so a tenant's ended jobs cost nothing, however many
    there are. Of one that a thousand jobs meet at once the newest are returned.
    """
    conditions = (AT_WORK, Job.finished_at >= since, and_(WAITING, Job.queued_at >= since))
    newest = select(Job).order_by(Job.id.desc()).limit(1000)
    found = {
        job.id: job for condition in conditions for job in session.scalars(newest.where(condition))
    }
    return list(found.values())


def request_cancel(session: Session, job_id: str) -> Job:
    """Cancel a queued job at once; ask the worker of an active one to; leave a final one alone.

    Returns the job as it is now; raises `NotFound`.
    """
    job = lock_job(session, job_id)
    if job.state is JobState.QUEUED:
        job.cancel_requested_at = job.finished_at = now(session)
        change_state(session, job, JobState.CANCELLED)
    elif job.state in ACTIVE and job.cancel_requested_at is None:
        job.cancel_requested_at = now(session)
    session.flush()
    return job


def retry(session: Session, job_id: str) -> Job:
    """Queue a failed or cancelled job again; it goes on at its last checkpoint if that is kept.

    It has all its attempts and its whole time again. Raises `NotFound`, `Expired` or `NotFetched`
    if its model or data set is not there, and `IllegalTransition` for a job in any other
    state. Once the transaction has committed, send a wake-up.
    """
    job = lock_job(session, job_id)
    check_retry(job.state)
    inputs = hold_uploads(session, job.model_id, job.dataset_id)
    # The clock is asked first, because asking flushes, and the row is to be written only once.
    queued_at = now(session)
    job.retries += 1
    job.awaits_inputs = _await_inputs(*inputs)
    job.failed_attempts, job.run_seconds = 0, 0.0
    job.cancel_requested_at = job.finished_at = None
    job.error_code = job.error_message = job.error_param = None
    job.state, job.queued_at = JobState.QUEUED, queued_at
    append_state_event(session, job)
    session.flush()
    return job
