"""`GET /jobs/{id}/events`: pages of JSON, or a stream of server-sent events.

Those of a sweep are answered in the same way (`answer`).
"""

from typing import Annotated, Any

from fastapi import Header, Query, Request, Response
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api.accept import prefers
from api.jobs.schemas import EventPage, EventView
from api.jobs.streaming import Read, Told
from api.problems import Problem, documented
from api.router import Router
from api.services import KeyDep, Services, ServicesDep
from api.text import PathText
from jobstore.events import list_events
from jobstore.jobs import get_job
from jobstore.states import FINAL

STREAM = EventSourceResponse.media_type
_MOST = 2**63 - 1
_PAGE = 100

router = Router(tags=["jobs"])


class EventsQuery(BaseModel):
    """Which events are asked for."""

    model_config = ConfigDict(extra="forbid")

    after: int = Field(0, ge=0, le=_MOST, description="The `seq` of the last one seen.")
    limit: int | None = Field(
        None,
        ge=1,
        le=1000,
        description=f"Events a page, by default {_PAGE}; a stream takes no limit.",
    )


LastEventId = Annotated[
    int | None,
    Header(
        alias="Last-Event-ID",
        ge=0,
        le=_MOST,
        description="For a stream: the id of the last event that came; it overrides `after`.",
    ),
]


def stream_responses() -> dict[int | str, dict[str, Any]]:
    """Return how a call that lists or follows events may answer, for OpenAPI."""
    return {
        200: {
            "description": "A page; or, where `Accept` prefers it, a stream that ends once "
            "it has ended. Each of its events has the `seq` as its id and the same JSON as data.",
            "content": {STREAM: {"schema": {"type": "string"}}},
        },
        204: {
            "description": "A stream has nothing more to tell: it has ended, and every event "
            "is known. A browser does not connect again."
        },
        **documented("not_found", "unknown_field", "invalid_value"),
    }


@router.head("/jobs/{job_id}/events", include_in_schema=False)
@router.get(
    "/jobs/{job_id}/events",
    summary="List or follow what happened to a job",
    response_model=EventPage,
    responses=stream_responses(),
)
async def events(
    job_id: PathText,
    query: Annotated[EventsQuery, Query()],
    request: Request,
    services: ServicesDep,
    key: KeyDep,
    last_event_id: LastEventId = None,
) -> Response:
    """Return events in order: changes of state, stages, progress, metrics, warnings, errors."""
    return await answer(_read, job_id, query, request, services, key, last_event_id)


def _read(session: Session, job_id: str, after: int, limit: int) -> Told:
    job = get_job(session, job_id)
    found = list_events(session, job_id, after=after, limit=limit)
    views = [EventView.of(event, job) for event in found]
    return Told(views, job.last_event_seq, job.state in FINAL)


async def answer(
    read: Read,
    id: str,
    query: EventsQuery,
    request: Request,
    services: Services,
    key: str | None,
    last_event_id: int | None,
) -> Response:
    """Return a page of the events that `read` reads, or a stream where `Accept` prefers it."""
    if prefers(request.headers.get("Accept", "*/*"), STREAM):
        if query.limit is not None:
            raise Problem("invalid_value", "A stream has no pages; leave 'limit' out.", "limit")
        after = query.after if last_event_id is None else last_event_id
        return await _stream(services, key, read, id, after, body=request.method != "HEAD")
    limit = query.limit or _PAGE
    told = await run_in_threadpool(_told, services, read, id, query.after, limit + 1)
    page = {
        "data": [event.model_dump(mode="json") for event in told.events[:limit]],
        "has_more": (has_more := len(told.events) > limit),
        "next": told.events[limit - 1].seq if has_more else None,
    }
    return JSONResponse(page, headers={"Vary": "Accept"})


async def _stream(
    services: Services, key: str | None, read: Read, id: str, after: int, *, body: bool
) -> Response:
    told = await run_in_threadpool(_told, services, read, id, after, 1)
    if told.is_final and after >= told.last_seq > 0:
        return Response(status_code=204)
    # X-Accel-Buffering keeps nginx from collecting events until a buffer is full.
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Vary": "Accept"}
    if not body:
        return Response(headers=headers, media_type=STREAM)
    stream = services.feed.stream(read, id, after, key)
    return EventSourceResponse(stream, headers=headers)


def _told(services: Services, read: Read, id: str, after: int, limit: int) -> Told:
    with services.database.read() as session:
        return read(session, id, after, limit)
