"""Jobs as a user sees them: create, read, list, cancel, retry. A worker's side is in `leases`."""

import base64
import binascii
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from jobstore.dialects import now
from jobstore.errors import InvalidCursor, NotFound
from jobstore.events import append_state_event, change_state
from jobstore.ids import is_job_id, new_job_id
from jobstore.states import ACTIVE, JobState, check_retry
from jobstore.tables import Job
from jobstore.uploads import hold_dataset, hold_model


@dataclass(frozen=True)
class Page:
    """Some jobs, and the cursor of those after them (None: there are no more)."""

    jobs: Sequence[Job]
    next: str | None


def create_job(
    session: Session,
    *,
    spec: dict[str, Any],
    model_id: str,
    dataset_id: str,
    max_attempts: int,
    time_limit_s: float,
    name: str | None = None,
    priority: int = 0,
    device: str | None = None,
    gpus: int = 0,
) -> Job:
    """Queue a job. Raises `NotFound` for a model or data set that is not there, or `Expired`.

    Once the transaction has committed, send a wake-up (`jobstore.wakeups.wake`).
    """
    job = Job(
        id=new_job_id(),
        name=name,
        spec=spec,
        model_id=hold_model(session, model_id).id,
        dataset_id=hold_dataset(session, dataset_id).id,
        rank=-priority,
        device=device,
        gpus=gpus,
        state=JobState.QUEUED,
        attempt=0,
        max_attempts=max_attempts,
        time_limit_s=time_limit_s,
        last_event_seq=0,
    )
    session.add(job)
    session.flush()
    append_state_event(session, job)
    session.flush()
    return job


def get_job(session: Session, job_id: str) -> Job:
    """Return the job; raises `NotFound`."""
    job = session.get(Job, job_id)
    if job is None:
        raise NotFound("job", job_id)
    return job


def states_of(session: Session, job_ids: Collection[str]) -> dict[str, JobState]:
    """Return the states of those of the jobs that there are, by id, in one query."""
    query = select(Job.id, Job.state).where(Job.id.in_(job_ids))
    return {row.id: row.state for row in session.execute(query)}


def list_jobs(
    session: Session,
    *,
    state: JobState | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> Page:
    """Return a page of jobs, newest first; `cursor` is the `next` of the page before.

    Jobs created meanwhile neither shift nor repeat what follows. Raises `InvalidCursor`.
    """
    query = select(Job).order_by(Job.id.desc()).limit(limit + 1)
    if state is not None:
        query = query.where(Job.state == state)
    if cursor is not None:
        query = query.where(Job.id < _decode_cursor(cursor))
    found = session.scalars(query).all()
    page = found[:limit]
    return Page(page, _encode_cursor(page[-1].id) if len(found) > limit else None)


def request_cancel(session: Session, job_id: str) -> Job:
    """Cancel a queued job at once; ask the worker of an active one to; leave a final one alone.

    Returns the job as it is now; raises `NotFound`.
    """
    job = _locked(session, job_id)
    if job.state is JobState.QUEUED:
        job.cancel_requested_at = job.finished_at = now(session)
        change_state(session, job, JobState.CANCELLED)
    elif job.state in ACTIVE and job.cancel_requested_at is None:
        job.cancel_requested_at = now(session)
    session.flush()
    return job


def retry(session: Session, job_id: str) -> Job:
    """Queue a failed or cancelled job again; it goes on at its last checkpoint if that is kept.

    It has all its attempts and its whole time again. Raises `NotFound`, `Expired` if its model or
    data set has, and `IllegalTransition` for a job in any other state. Once the transaction has
    committed, send a wake-up.
    """
    job = _locked(session, job_id)
    check_retry(job.state)
    hold_model(session, job.model_id)
    hold_dataset(session, job.dataset_id)
    job.retries += 1
    job.failed_attempts, job.run_seconds = 0, 0.0
    job.cancel_requested_at = job.finished_at = None
    job.error_code = job.error_message = job.error_param = None
    job.state = JobState.QUEUED
    append_state_event(session, job)
    session.flush()
    return job


def _locked(session: Session, job_id: str) -> Job:
    job = session.get(Job, job_id, with_for_update=True, populate_existing=True)
    if job is None:
        raise NotFound("job", job_id)
    return job


def _encode_cursor(job_id: str) -> str:
    return base64.urlsafe_b64encode(job_id.encode()).decode()


def _decode_cursor(cursor: str) -> str:
    try:
        job_id = base64.b64decode(cursor, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        job_id = ""
    # Nothing else reaches the database: PostgreSQL, for one, fails on a text with a NUL in it.
    if not is_job_id(job_id):
        raise InvalidCursor(f"not a cursor of this service: {cursor!r}")
    return job_id
