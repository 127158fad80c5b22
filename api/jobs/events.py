"""`GET /jobs/{id}/events`: pages of JSON, or a stream of server-sent events."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from api.accept import prefers
from api.jobs.schemas import EventPage, EventView
from api.problems import Problem, documented
from api.services import KeyDep, Services, ServicesDep
from api.text import PathText
from jobstore.events import list_events
from jobstore.jobs import get_job
from jobstore.states import FINAL
from jobstore.tables import Job

STREAM = EventSourceResponse.media_type
_MOST = 2**63 - 1
_PAGE = 100

router = APIRouter(tags=["jobs"])


class _Events(BaseModel):
    model_config = ConfigDict(extra="forbid")

    after: int = Field(0, ge=0, le=_MOST, description="The `seq` of the last one seen.")
    limit: int | None = Field(
        None,
        ge=1,
        le=1000,
        description=f"Events a page, by default {_PAGE}; a stream takes no limit.",
    )


_LastEventId = Annotated[
    int | None,
    Header(
        alias="Last-Event-ID",
        ge=0,
        le=_MOST,
        description="For a stream: the id of the last event that came; it overrides `after`.",
    ),
]


@router.head("/jobs/{job_id}/events", include_in_schema=False)
@router.get(
    "/jobs/{job_id}/events",
    summary="List or follow what happened to a job",
    response_model=EventPage,
    responses={
        200: {
            "description": "A page; or, where `Accept` prefers it, a stream that ends once the "
            "job has ended. Each of its events has the `seq` as its id and the same JSON as data.",
            "content": {STREAM: {"schema": {"type": "string"}}},
        },
        204: {
            "description": "A stream has nothing more to tell: the job has ended, and every event "
            "is known. A browser does not connect again."
        },
        **documented("not_found", "unknown_field", "invalid_value"),
    },
)
async def events(
    job_id: PathText,
    query: Annotated[_Events, Query()],
    request: Request,
    services: ServicesDep,
    key: KeyDep,
    last_event_id: _LastEventId = None,
) -> Response:
    """Return events in order: changes of state, stages, progress, metrics, warnings, errors."""
    if prefers(request.headers.get("Accept", "*/*"), STREAM):
        if query.limit is not None:
            raise Problem("invalid_value", "A stream has no pages; leave 'limit' out.", "limit")
        after = query.after if last_event_id is None else last_event_id
        return await _stream(services, key, job_id, after, body=request.method != "HEAD")
    page = await run_in_threadpool(_page, services, job_id, query.after, query.limit or _PAGE)
    return JSONResponse(page.model_dump(mode="json"), headers={"Vary": "Accept"})


def _page(services: Services, job_id: str, after: int, limit: int) -> EventPage:
    with services.database.read() as session:
        job = get_job(session, job_id)
        found = list_events(session, job_id, after=after, limit=limit + 1)
    data = [EventView.of(event, job) for event in found[:limit]]
    has_more = len(found) > limit
    return EventPage(data=data, has_more=has_more, next=data[-1].seq if has_more else None)


async def _stream(
    services: Services, key: str | None, job_id: str, after: int, *, body: bool
) -> Response:
    job = await run_in_threadpool(_job, services, job_id)
    if job.state in FINAL and after >= job.last_event_seq > 0:
        return Response(status_code=204)
    # X-Accel-Buffering keeps nginx from collecting events until a buffer is full.
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Vary": "Accept"}
    if not body:
        return Response(headers=headers, media_type=STREAM)
    stream = services.feed.stream(job_id, after, key)
    return EventSourceResponse(stream, headers=headers)


def _job(services: Services, job_id: str) -> Job:
    with services.database.read() as session:
        return get_job(session, job_id)
