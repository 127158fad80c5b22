"""`POST /jobs`, `GET /jobs`, `GET /jobs/{id}`, its cancellation, its retry, its end."""

from functools import partial
from typing import Annotated

from fastapi import Query, Request, Response
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool

from api.accept import prefers
from api.datasets.intake import dataset_rule
from api.describing import Description, ListQuery
from api.idempotency import IdempotencyKey, answer_once
from api.jobs.changes import LastMoment, changes
from api.jobs.creation import create_by_ids, create_with_files, names_files_elsewhere, not_uploaded
from api.jobs.documentation import CREATE_RESPONSES, NEW_JOB_BODY
from api.jobs.events import STREAM
from api.jobs.resources import offers_for, queue_for
from api.jobs.schemas import JobPage, JobView, NewJobView, NewJobWithFiles
from api.jobs.spec import read_new_job
from api.models.intake import model_rule
from api.openapi import json_body
from api.problems import DESCRIBE_CODES, ONCE_CODES, Problem, documented
from api.router import Router
from api.services import Caller, CallerDep, KeyDep, Services, ServicesDep
from api.sources.asking import in_thread_of
from api.strict_json import parse_object, read_body, read_json
from api.text import WITHOUT_NUL, PathText
from api.uploads.receiving import TextRule, received
from jobstore import audit
from jobstore.deletion import delete_job, drop
from jobstore.errors import Expired, IllegalTransition, NotFetched, NotFound
from jobstore.idempotency import Answer
from jobstore.jobs import get_job, list_jobs, lock_job, request_cancel
from jobstore.jobs import retry as retry_job
from jobstore.labels import describe
from jobstore.quotas import check_queue
from jobstore.states import FINAL, JobState
from jobstore.tables import Document, Job
from jobstore.wakeups import wake

router = Router(tags=["jobs"])


@router.post(
    "/jobs",
    status_code=202,
    summary="Queue a job",
    response_model=NewJobView,
    openapi_extra=NEW_JOB_BODY,
    responses=CREATE_RESPONSES,
)
async def create(
    request: Request, services: ServicesDep, idempotency_key: IdempotencyKey = None
) -> JSONResponse:
    """Compress a network: by the ids of uploaded files, or with the files in the same request.

    Everything that the files' headers and the spec tell is checked before the answer; what needs
    the numbers in them is the job's `validating` stage.
    """
    media_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type == "application/json":
        body = await read_json(request)
        act = partial(create_by_ids, services, body, idempotency_key)
        if names_files_elsewhere(body):
            return await in_thread_of(services.store.tenant, act)
        return await run_in_threadpool(act)
    if media_type != "multipart/form-data":
        detail = "Send application/json with ids, or multipart/form-data with files."
        raise Problem("unsupported_media_type", detail)
    model = model_rule("model", services.settings)
    dataset = dataset_rule("dataset", services.settings)
    spec = TextRule("spec", lambda text: _read_spec(services, text))
    async with received(request, services, [spec, model, dataset]) as form:
        return await run_in_threadpool(
            create_with_files,
            services,
            *form.text(spec),
            form.file(model),
            form.file(dataset),
            idempotency_key,
        )


def _read_spec(services: Services, text: str) -> tuple[NewJobWithFiles, Document]:
    with services.database.read() as session:
        return read_new_job(session, parse_object(text), NewJobWithFiles)


class _List(ListQuery):
    state: JobState | None = None
    method: str | None = Field(None, max_length=200, pattern=WITHOUT_NUL)
    q: str | None = Field(
        None, max_length=200, pattern=WITHOUT_NUL, description="A part of the name or of the id."
    )
    sweep_id: str | None = Field(
        None,
        max_length=255,
        pattern=WITHOUT_NUL,
        description="Only the trials of this sweep.",
    )


@router.head("/jobs", include_in_schema=False)
@router.get(
    "/jobs",
    summary="List jobs, or follow them",
    response_model=JobPage,
    responses={
        200: {
            "description": "A page; or, where `Accept` prefers it, a stream without end that tells "
            "each job anew when it changes. An event's data is the job, its id a moment from which "
            "`Last-Event-ID` goes on. The query is for pages.",
            "content": {STREAM: {"schema": {"type": "string"}}},
        },
        **documented("unknown_field", "invalid_value"),
    },
)
async def list_(
    query: Annotated[_List, Query()],
    request: Request,
    services: ServicesDep,
    key: KeyDep,
    last_event_id: LastMoment = None,
) -> Response:
    """Return a page of jobs. Jobs created meanwhile neither shift nor repeat what follows."""
    if prefers(request.headers.get("Accept", "*/*"), STREAM):
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Vary": "Accept"}
        if request.method == "HEAD":
            return Response(headers=headers, media_type=STREAM)
        return EventSourceResponse(changes(services, key, last_event_id), headers=headers)
    page = await run_in_threadpool(_page, services, query)
    headers = {"Vary": "Accept"}
    return Response(page.model_dump_json(), headers=headers, media_type="application/json")


def _page(services: Services, query: _List) -> JobPage:
    with services.database.read() as session:
        page = list_jobs(session, query.which(), **query.filters())
        offers = offers_for(session, services.settings, page.jobs)
        data = [JobView.of(job, offers) for job in page.jobs]
    return JobPage(data=data, has_more=page.next is not None, next=page.next)


class _Wait(BaseModel):
    model_config = ConfigDict(extra="forbid")

    wait: int = Field(0, ge=0, le=60, description="Seconds to wait for the next change of state.")


@router.get(
    "/jobs/{job_id}",
    summary="Get a job, or wait for it",
    response_model=JobView,
    responses=documented("not_found", "unknown_field", "invalid_value"),
)
async def get(job_id: PathText, query: Annotated[_Wait, Query()], caller: CallerDep) -> Response:
    """Return the job as it is, or with `wait` as soon as its state changes (at once if final)."""
    services, view = await run_in_threadpool(_let_in_and_get, caller, job_id)
    if query.wait and view.state not in FINAL:
        known = view.state
        await services.watcher.wait(job_id, lambda head: head.state != known, query.wait)
        view = await run_in_threadpool(_get, services, job_id)
    # FastAPI would check the fields again, which have been checked as the view was made.
    return Response(view.model_dump_json(), media_type="application/json")


def _let_in_and_get(caller: Caller, job_id: str) -> tuple[Services, JobView]:
    services = caller.let_in()
    return services, _get(services, job_id)


def _get(services: Services, job_id: str) -> JobView:
    job = services.database.find(Job, job_id)
    if job is None:
        raise NotFound("job", job_id)
    if job.state is not JobState.QUEUED:
        return JobView.of(job, ())
    with services.database.read() as session:
        return _view(session, services, job)


def _view(session: Session, services: Services, job: Job) -> JobView:
    return JobView.of(job, offers_for(session, services.settings, [job]))


@router.patch(
    "/jobs/{job_id}",
    summary="Change a job's name, labels or metadata",
    openapi_extra=json_body(Description),
    responses=documented(*DESCRIBE_CODES),
)
async def change(job_id: PathText, request: Request, services: ServicesDep) -> JobView:
    """Change the fields that are sent, each as a whole; what the job does stays as it is."""
    changes = (await read_body(request, Description)).changes()
    return await run_in_threadpool(_change, services, job_id, changes)


def _change(services: Services, job_id: str, changes: Document) -> JobView:
    with services.database.write() as session:
        job = lock_job(session, job_id)
        describe(session, job, changes)
        audit.record(session, "job.change", job_id, fields=sorted(changes))
        return _view(session, services, job)


@router.post(
    "/jobs/{job_id}/cancel",
    status_code=202,
    summary="Cancel a job",
    response_model=JobView,
    responses={
        200: {"model": JobView, "description": "It was cancelled before."},
        **documented(
            "not_found",
            "already_finished",
            "invalid_value",
            *ONCE_CODES,
        ),
    },
)
def cancel(
    job_id: PathText, services: ServicesDep, idempotency_key: IdempotencyKey = None
) -> JSONResponse:
    """End a queued job at once; have the worker of a running one end it within seconds.

    The answer is the job as it is now; follow it until its state is `cancelled`.
    """

    def act(session: Session) -> Answer:
        before = get_job(session, job_id).state
        if before in (JobState.SUCCEEDED, JobState.FAILED):
            detail = f"The job has {before.value}; there is nothing left to cancel."
            raise Problem("already_finished", detail)
        job = request_cancel(session, job_id)
        audit.record(session, "job.cancel", job_id)
        status = 200 if before is JobState.CANCELLED else 202
        return Answer(status, {}, _view(session, services, job).model_dump(mode="json"))

    scope = f"POST /jobs/{job_id}/cancel"
    return answer_once(services.database, scope, idempotency_key, {}, act)


@router.post(
    "/jobs/{job_id}/retry",
    status_code=202,
    summary="Queue a failed or cancelled job again",
    response_model=JobView,
    responses=documented("not_found", "not_retryable", "invalid_value", *ONCE_CODES),
)
def retry(
    job_id: PathText, services: ServicesDep, idempotency_key: IdempotencyKey = None
) -> JSONResponse:
    """Have the same job go on at its last checkpoint, with all its attempts and time again.

    Checkpoints of ended jobs are kept for a week by default; after that it starts from the
    beginning. What happened before stays in its events.
    """

    def act(session: Session) -> Answer:
        check_queue(session, services.terms.max_queued_jobs)
        try:
            job = retry_job(session, job_id)
            audit.record(session, "job.retry", job_id)
        except NotFetched as error:
            raise Problem("not_retryable", not_uploaded(error).detail) from error
        except Expired as error:
            detail = f"Its {error.kind} has expired: upload it again, for a new job."
            raise Problem("not_retryable", detail) from error
        except IllegalTransition as error:
            detail = f"{str(error).capitalize()}: only one that has failed or was cancelled can."
            raise Problem("not_retryable", detail) from error
        return Answer(202, {}, _view(session, services, job).model_dump(mode="json"))

    scope = f"POST /jobs/{job_id}/retry"
    response = answer_once(services.database, scope, idempotency_key, {}, act)
    response.background = BackgroundTask(wake, services.celery, queue_for(response))
    return response


@router.delete(
    "/jobs/{job_id}",
    status_code=204,
    response_class=Response,
    summary="Delete a job that has ended",
    responses=documented("not_found", "not_ended", "invalid_value"),
)
def delete(job_id: PathText, services: ServicesDep) -> None:
    """Delete it with its events, checkpoints and files; its model and data set stay."""
    with services.database.write() as session:
        freed = delete_job(session, job_id)
        audit.record(session, "job.delete", job_id)
    drop(services.database, services.store, freed)
