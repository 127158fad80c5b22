"""A stream of jobs as they change: what a page that shows many of them follows.

No table has the events of all jobs together: a look a second asks for those that are at work, and
for those that were queued or have ended since the last look.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import Header
from fastapi.sse import format_sse_event
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from api.jobs.resources import offers_for
from api.jobs.schemas import JobView
from api.jobs.streaming import HEARTBEAT_S, RETRY_MS
from api.services import Services
from jobstore.dialects import now
from jobstore.jobs import changed_jobs

LOOK_S = 1.0
# A transaction may commit so long after it has asked for the time.
_OVERLAP = timedelta(seconds=5)
# What a client may have missed at most; who was away for longer loads the list anew.
_FARTHEST = timedelta(hours=1)

LastMoment = Annotated[
    datetime | None,
    Header(alias="Last-Event-ID", description="For a stream: the id of the last event that came."),
]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Look:
    moment: datetime
    views: list[JobView]


async def changes(
    services: Services, key: str | None, since: datetime | None
) -> AsyncIterator[bytes]:
    """Yield each job that has changed since then, or since now, and goes on changing.

    It ends when the key holds no more, the database fails or the process stops: whoever listens
    connects again.
    """
    told: dict[str, str] = {}
    silent_s = 0.0
    services.feed.open += 1
    try:
        yield format_sse_event(retry=RETRY_MS)
        while not services.watcher.released:
            look = await run_in_threadpool(_look, services, since)
            if not await services.feed.holds(key):
                return
            # As they are told, so that whatever a view shows is told when it changes.
            written = {view.id: view.model_dump_json() for view in look.views}
            news = [text for id, text in written.items() if told.get(id) != text]
            told, since = written, look.moment
            for text in news:
                yield format_sse_event(data_str=text, id=look.moment.isoformat())
            silent_s = 0.0 if news else silent_s + LOOK_S
            if silent_s >= HEARTBEAT_S:
                silent_s = 0.0
                yield format_sse_event(comment="still here")
            await asyncio.sleep(LOOK_S)
    except SQLAlchemyError as error:
        log.warning("a stream of jobs ends: %s", error)
    finally:
        services.feed.open -= 1


def _look(services: Services, since: datetime | None) -> _Look:
    with services.database.read() as session:
        moment = now(session)
        start = moment if since is None else since.replace(tzinfo=since.tzinfo or UTC)
        # A client may name any moment, also one that cannot be reckoned with.
        start = min(max(start, moment - _FARTHEST), moment)
        jobs = changed_jobs(session, start - _OVERLAP)
        offers = offers_for(session, services.settings, jobs)
        return _Look(moment, [JobView.of(job, offers) for job in jobs])
