"""The events of a job, in order."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from jobstore.states import JobState, check_transition
from jobstore.tables import Event, Job
from jobstore.webhooks import tell_state


class EventType(StrEnum):
    """The types of events; `state` and `error` are the store's, the others come from the child."""

    STATE = "state"
    ERROR = "error"
    STAGE = "stage"
    PROGRESS = "progress"
    METRIC = "metric"
    RESUMED = "resumed"
    WARNING = "warning"


@dataclass(frozen=True)
class NewEvent:
    """An event to append; `time` None means now, by the database's clock."""

    type: EventType
    data: dict[str, Any]
    time: datetime | None = None


def append_event(session: Session, job: Job, event: NewEvent) -> None:
    """Append to the job's events. `job` must be new or locked by this transaction.

    The lock is what makes the sequence numbers gapless and ordered: a reader that has seen number
    n will never see a smaller one appear.
    """
    session.add(_next_event(job, event))


def _next_event(job: Job, event: NewEvent) -> Event:
    job.last_event_seq += 1
    row = Event(
        tenant_id=job.tenant_id,
        job_id=job.id,
        seq=job.last_event_seq,
        type=event.type.value,
        attempt=job.attempt,
        data=event.data,
    )
    if event.time is not None:
        row.time = event.time
    return row


def change_state(session: Session, job: Job, state: JobState) -> None:
    """Move the job to `state` and append the event that says so; `job` as in `append_event`.

    Raises `IllegalTransition`.
    """
    check_transition(job.state, state)
    job.state = state
    append_state_event(session, job)


def append_state_event(session: Session, job: Job) -> None:
    """Append the event that tells the job's present state, to its webhooks, too."""
    session.add(state_event(job))
    tell_state(session, job)


def state_event(job: Job) -> Event:
    """Return the next event of the job, to be added: it tells its present state."""
    data = {"state": job.state.value, "attempt": job.attempt}
    return _next_event(job, NewEvent(EventType.STATE, data))


def attempt_began(session: Session, job: Job) -> datetime:
    """Return when the job's present attempt began, which its first event tells."""
    mine = (Event.job_id == job.id, Event.attempt == job.attempt)
    return session.scalars(select(Event.time).where(*mine).order_by(Event.seq).limit(1)).one()


def best_metric(session: Session, job: Job, name: str) -> dict[str, Any] | None:
    """Return the data of the job's `metric` event with the most of a figure, of its present stage.

    Only the newest events are looked at.
    """
    query = select(Event.data).where(Event.job_id == job.id, Event.type == EventType.METRIC.value)
    newest = session.scalars(query.order_by(Event.seq.desc()).limit(_NEWEST)).all()
    found = [data for data in newest if data.get("stage") == job.stage and name in data]
    return max(found, key=lambda data: float(data[name]), default=None)


_NEWEST = 100


def list_events(session: Session, job_id: str, *, after: int = 0, limit: int = 1000) -> list[Event]:
    """Return up to `limit` events of the job with a number above `after`, oldest first."""
    query = select(Event).where(Event.job_id == job_id, Event.seq > after)
    return list(session.scalars(query.order_by(Event.seq).limit(limit)))
