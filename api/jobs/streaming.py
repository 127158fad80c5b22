"""The events of a job or a sweep as a stream of server-sent events.

FastAPI writes the events; its generator routes are not used, because they have one form of answer
a route (this one also answers JSON, 204 and HEAD), write each event anew for every listener, and
keep two tasks and two queues for each.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from fastapi.sse import format_sse_event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api.jobs.schemas import ShownEvent
from api.jobs.waiting import JobWatcher
from jobstore.database import Database
from jobstore.errors import NotFound

# Proxies close a connection on which nothing has come for a minute.
HEARTBEAT_S = 15.0
# How long a browser waits before it connects again.
RETRY_MS = 2000

_EVENTS_AT_ONCE = 100

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Told:
    """Some events of a job or a sweep, the number of its newest, and whether it has ended."""

    events: Sequence[ShownEvent]
    last_seq: int
    is_final: bool


Read = Callable[[Session, str, int, int], Told]
"""Reads up to so many events of what has the id, above a number; raises `NotFound`."""


@dataclass(frozen=True)
class _Page:
    text: bytes
    last_seq: int
    is_end: bool


class EventFeed:
    """The streams of one process; streams that wait for the same event read it together.

    `holds` tells whether a key is still let in.
    """

    def __init__(
        self, database: Database, watcher: JobWatcher, holds: Callable[[str | None], bool]
    ) -> None:
        self._database = database
        self._watcher = watcher
        self._holds = holds
        self._asked: dict[Hashable, asyncio.Task[object]] = {}
        self.open = 0

    async def stream(
        self, read: Read, id: str, after: int, key: str | None
    ) -> AsyncIterator[bytes]:
        """Yield the events above `after` as they happen, until what has the id has ended.

        The key is looked at again for every page, so a revoked one is told nothing more. It also
        ends when the database fails, the job or sweep is deleted or the process stops: whoever
        listens connects again with the id of the last event that has come.
        """
        self.open += 1
        try:
            yield format_sse_event(retry=RETRY_MS)
            while not self._watcher.released:
                page = await self._once((id, after), self._page, read, id, after)
                if not await self._once(("key", key), self._holds, key):
                    return
                if page.text:
                    yield page.text
                if page.is_end:
                    return
                after = page.last_seq
                if not page.text and not await self._more_than(after, id):
                    yield format_sse_event(comment="still here")
        except (SQLAlchemyError, NotFound) as error:
            log.warning("an event stream ends: %s", error)
        finally:
            self.open -= 1

    async def _more_than(self, seq: int, id: str) -> bool:
        return await self._watcher.wait(id, lambda head: head.last_event_seq > seq, HEARTBEAT_S)

    async def _once(self, what: Hashable, ask: Callable[..., T], *arguments: object) -> T:
        """Ask, together with the other streams that want to know the same now."""
        task = self._asked.get(what)
        if task is None:
            task = asyncio.create_task(run_in_threadpool(ask, *arguments))
            self._asked[what] = task
            task.add_done_callback(lambda _: self._asked.pop(what))
        # The shield keeps one listener that goes away from taking the answer from the others.
        return cast(T, await asyncio.shield(task))

    def _page(self, read: Read, id: str, after: int) -> _Page:
        with self._database.read() as session:
            told = read(session, id, after, _EVENTS_AT_ONCE)
        last_seq = told.events[-1].seq if told.events else after
        return _Page(
            text=b"".join(map(_written, told.events)),
            last_seq=last_seq,
            is_end=told.is_final and last_seq >= told.last_seq,
        )


def _written(event: ShownEvent) -> bytes:
    # The `event` field is left out: a browser would take our type "error" for the connection's own.
    return format_sse_event(data_str=event.model_dump_json(), id=str(event.seq))
