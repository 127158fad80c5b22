"""`POST /sweeps`, `GET /sweeps`, `GET /sweeps/{id}`, its events, its cancellation, its end."""

from typing import Annotated

from fastapi import Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api.idempotency import IdempotencyKey, answer_once
from api.jobs.events import EventsQuery, LastEventId, answer, stream_responses
from api.jobs.streaming import Told
from api.openapi import LOCATION, json_body
from api.problems import ONCE_CODES, Problem, documented
from api.router import Router
from api.services import KeyDep, Services, ServicesDep
from api.strict_json import read_json
from api.sweeps.creation import create as create_sweep
from api.sweeps.schemas import (
    NewSweep,
    NewSweepView,
    SweepEventPage,
    SweepEventView,
    SweepPage,
    SweepView,
    SweepWithTrials,
)
from api.text import PathText
from jobstore import audit, sweeps
from jobstore.deletion import delete_sweep, drop
from jobstore.dialects import now
from jobstore.idempotency import Answer
from jobstore.states import SweepState

router = Router(tags=["sweeps"])


@router.post(
    "/sweeps",
    status_code=202,
    summary="Begin a sweep: many jobs on one network, of which the best is looked for",
    response_model=NewSweepView,
    openapi_extra=json_body(NewSweep),
    responses={
        202: LOCATION,
        **documented(
            "malformed_json",
            "file_too_large",
            "missing_field",
            "unknown_field",
            "invalid_value",
            "unknown_method",
            "k_out_of_range",
            "too_many_trials",
            *ONCE_CODES,
            "no_worker",
        ),
    },
)
async def create(
    request: Request, services: ServicesDep, idempotency_key: IdempotencyKey = None
) -> JSONResponse:
    """Compress a network by every combination of a grid, by a list of specs, or towards a goal.

    Every trial's spec is checked as that of a job is before anything is made; `param` names the
    place in the grid. The trials are ordinary jobs, each with a report of its own, once their turn
    has come; a tenant's quota of queued jobs makes them wait and refuses none.
    """
    body = await read_json(request)
    return await run_in_threadpool(create_sweep, services, body, idempotency_key)


class _List(BaseModel):
    model_config = ConfigDict(extra="forbid")

    state: SweepState | None = None
    limit: int = Field(20, ge=1, le=100)
    cursor: str | None = Field(None, description="The `next` of the page before.")


@router.get(
    "/sweeps",
    summary="List sweeps, newest first",
    responses=documented("unknown_field", "invalid_value"),
)
def list_(query: Annotated[_List, Query()], services: ServicesDep) -> SweepPage:
    """Return a page of sweeps, without their trials."""
    with services.database.read() as session:
        page = sweeps.list_sweeps(session, **query.model_dump())
        at = now(session)
    data = [SweepView.of(sweep, page.trials.get(sweep.id, []), at) for sweep in page.sweeps]
    return SweepPage(data=data, has_more=page.next is not None, next=page.next)


class _Wait(BaseModel):
    model_config = ConfigDict(extra="forbid")

    wait: int = Field(0, ge=0, le=60, description="Seconds to wait for the next change of state.")


@router.get(
    "/sweeps/{sweep_id}",
    summary="Get a sweep, or wait for it",
    response_model=SweepWithTrials,
    responses=documented("not_found", "unknown_field", "invalid_value"),
)
async def get(
    sweep_id: PathText, query: Annotated[_Wait, Query()], services: ServicesDep
) -> Response:
    """Return the sweep as it is, or with `wait` as soon as its state changes (at once if ended)."""
    view = await run_in_threadpool(_get, services, sweep_id)
    if query.wait and view.state is SweepState.RUNNING:
        await services.watcher.wait(
            sweep_id, lambda head: head.state is not SweepState.RUNNING, query.wait
        )
        view = await run_in_threadpool(_get, services, sweep_id)
    # FastAPI would check the fields again, which have been checked as the view was made.
    return Response(view.model_dump_json(), media_type="application/json")


def _get(services: Services, sweep_id: str) -> SweepWithTrials:
    with services.database.read() as session:
        return _view(session, sweep_id)


def _view(session: Session, sweep_id: str) -> SweepWithTrials:
    sweep = sweeps.get_sweep(session, sweep_id)
    return SweepWithTrials.of(sweep, sweeps.list_trials(session, sweep_id), now(session))


@router.head("/sweeps/{sweep_id}/events", include_in_schema=False)
@router.get(
    "/sweeps/{sweep_id}/events",
    summary="List or follow what happened to a sweep",
    response_model=SweepEventPage,
    responses=stream_responses(),
)
async def events(
    sweep_id: PathText,
    query: Annotated[EventsQuery, Query()],
    request: Request,
    services: ServicesDep,
    key: KeyDep,
    last_event_id: LastEventId = None,
) -> Response:
    """Return events in order: changes of the state of the sweep, and of each of its trials."""
    return await answer(_read_events, sweep_id, query, request, services, key, last_event_id)


def _read_events(session: Session, sweep_id: str, after: int, limit: int) -> Told:
    sweep = sweeps.get_sweep(session, sweep_id)
    found = sweeps.list_events(session, sweep_id, after=after, limit=limit)
    ended = sweep.state is not SweepState.RUNNING
    return Told(list(map(SweepEventView.of, found)), sweep.last_event_seq, ended)


@router.post(
    "/sweeps/{sweep_id}/cancel",
    status_code=202,
    summary="Cancel a sweep",
    response_model=SweepWithTrials,
    responses={
        200: {"model": SweepWithTrials, "description": "It was cancelled before."},
        **documented("not_found", "already_finished", "invalid_value", *ONCE_CODES),
    },
)
def cancel(
    sweep_id: PathText, services: ServicesDep, idempotency_key: IdempotencyKey = None
) -> JSONResponse:
    """Cancel the trials that have not ended, and begin no other.

    The answer is the sweep as it is now; follow it until its state is `cancelled`.
    """

    def act(session: Session) -> Answer:
        before = sweeps.hold_sweep(session, sweep_id).state
        if before in (SweepState.SUCCEEDED, SweepState.FAILED):
            detail = f"The sweep has {before.value}; there is nothing left to cancel."
            raise Problem("already_finished", detail)
        sweeps.request_cancel(session, sweep_id)
        audit.record(session, "sweep.cancel", sweep_id)
        status = 200 if before is SweepState.CANCELLED else 202
        return Answer(status, {}, _view(session, sweep_id).model_dump(mode="json"))

    scope = f"POST /sweeps/{sweep_id}/cancel"
    return answer_once(services.database, scope[-255:], idempotency_key, {}, act)


@router.delete(
    "/sweeps/{sweep_id}",
    status_code=204,
    response_class=Response,
    summary="Delete a sweep that has ended, and all its trials",
    responses=documented("not_found", "not_ended", "invalid_value"),
)
def delete(sweep_id: PathText, services: ServicesDep) -> None:
    """Delete it with its trials: jobs with their events, checkpoints, reports and files."""
    with services.database.write() as session:
        freed = delete_sweep(session, sweep_id)
        audit.record(session, "sweep.delete", sweep_id)
    drop(services.database, services.store, freed)
