"""A job's events as a stream of server-sent events."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from api.jobs.schemas import EventView
from api.jobs.waiting import JobWatcher
from jobstore.database import Database
from jobstore.errors import NotFound
from jobstore.events import list_events
from jobstore.jobs import get_job
from jobstore.states import FINAL
from jobstore.tables import Event

# Proxies close a connection on which nothing has come for a minute.
HEARTBEAT_S = 15.0
# How long a browser waits before it connects again.
RETRY_MS = 2000
# A key is looked at when a stream begins; so a revoked one follows nothing for longer than this.
LONGEST_S = 300.0

_EVENTS_AT_ONCE = 100

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Page:
    text: bytes
    last_seq: int
    is_end: bool


class EventFeed:
    """The streams of one process; those that stand at the same event of a job read it once."""

    def __init__(self, database: Database, watcher: JobWatcher) -> None:
        self._database = database
        self._watcher = watcher
        self._reading: dict[tuple[str, int], asyncio.Task[_Page]] = {}
        self.open = 0

    async def stream(self, job_id: str, after: int) -> AsyncIterator[bytes]:
        """Yield the job's events above `after` as they happen, until it is final and all are told.

        It also ends after `LONGEST_S`, and when the database fails, the job is deleted or the
        process stops: whoever listens connects again with the id of the last event that has come.
        """
        self.open += 1
        try:
            yield f"retry: {RETRY_MS}\n\n".encode()
            until = time.monotonic() + LONGEST_S
            while not self._watcher.released and time.monotonic() < until:
                page = await self._read(job_id, after)
                if page.text:
                    yield page.text
                if page.is_end:
                    return
                after = page.last_seq
                if not page.text and not await self._more_than(after, job_id):
                    yield b": still here\n\n"
        except (SQLAlchemyError, NotFound) as error:
            log.warning("an event stream ends: %s", error)
        finally:
            self.open -= 1

    async def _more_than(self, seq: int, job_id: str) -> bool:
        return await self._watcher.wait(job_id, lambda head: head.last_event_seq > seq, HEARTBEAT_S)

    async def _read(self, job_id: str, after: int) -> _Page:
        at = (job_id, after)
        task = self._reading.get(at)
        if task is None:
            task = asyncio.create_task(run_in_threadpool(self._page, job_id, after))
            self._reading[at] = task
            task.add_done_callback(lambda _: self._reading.pop(at))
        # Shielded: one listener that goes away must not take the answer from the others.
        return await asyncio.shield(task)

    def _page(self, job_id: str, after: int) -> _Page:
        with self._database.read() as session:
            job = get_job(session, job_id)
            events = list_events(session, job_id, after=after, limit=_EVENTS_AT_ONCE)
        last_seq = events[-1].seq if events else after
        return _Page(
            text=b"".join(_written(event) for event in events),
            last_seq=last_seq,
            is_end=job.state in FINAL and last_seq >= job.last_event_seq,
        )


def _written(event: Event) -> bytes:
    # No `event:` field: a browser would take our type "error" for the connection's own.
    return f"id: {event.seq}\ndata: {EventView.of(event).model_dump_json()}\n\n".encode()
