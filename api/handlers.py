"""Turns every error that reaches the application into a problem document."""

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from api.methods import allowed
from api.problems import Problem, insufficient_storage, invalid
from api.ratelimit import quota_exceeded
from api.refusals import is_watched
from api.requests import REQUEST_ID
from api.text import clip, shown
from jobstore import logs
from jobstore.errors import (
    DiskFull,
    IdempotencyConflict,
    InUse,
    InvalidCursor,
    NotEnded,
    NotFound,
    QuotaExceeded,
    StillAtWork,
    TenantGone,
)
from jobstore.retry import TRANSIENT as TRANSIENT_KINDS
from jobstore.retry import is_disk_full, is_transient

# No standard has it.
CLIENT_CLOSED_REQUEST = 499

log = logging.getLogger(__name__)


def install(app: FastAPI) -> None:
    """Make every error of `app`, the framework's own included, a problem document."""

    @app.exception_handler(Problem)
    async def _problem(request: Request, problem: Problem) -> JSONResponse:
        if is_watched(request, problem):
            await run_in_threadpool(request.app.state.services.refusals.note, request, problem)
        return problem.response()

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return invalid(error.errors()).response()

    @app.exception_handler(NotFound)
    async def _not_found(request: Request, error: NotFound) -> JSONResponse:
        detail = f"There is no {error.kind} {shown(error.id)}. {_WHERE[error.kind]}."
        return await _problem(request, Problem("not_found", detail))

    @app.exception_handler(TenantGone)
    async def _tenant_gone(_: Request, error: TenantGone) -> JSONResponse:
        detail = f"The tenant {shown(str(error))} is being erased; GET /tenants says until when."
        return Problem("being_erased", detail).response()

    @app.exception_handler(InvalidCursor)
    async def _invalid_cursor(_: Request, error: InvalidCursor) -> JSONResponse:
        detail = f"{error}; send the 'next' of the page before, or none for the first page."
        return Problem("invalid_value", detail, "cursor").response()

    @app.exception_handler(IdempotencyConflict)
    async def _conflict(_: Request, error: IdempotencyConflict) -> JSONResponse:
        detail = f"{error} with other content; choose a new key for a new request."
        return Problem("idempotency_conflict", detail, "Idempotency-Key").response()

    @app.exception_handler(NotEnded)
    async def _not_ended(_: Request, error: NotEnded) -> JSONResponse:
        detail = f"It cannot be deleted, {error}: cancel it first (POST {error.path}/cancel)."
        return Problem("not_ended", detail).response()

    @app.exception_handler(InUse)
    async def _in_use(_: Request, error: InUse) -> JSONResponse:
        how = "DELETE /jobs/{id}, DELETE /sweeps/{id}"
        detail = f"There are jobs or sweeps on the {error.kind}; delete them first ({how})."
        return Problem("in_use", detail).response()

    @app.exception_handler(QuotaExceeded)
    async def _quota(_: Request, error: QuotaExceeded) -> JSONResponse:
        return quota_exceeded(error).response()

    @app.exception_handler(StillAtWork)
    async def _at_work(_: Request, error: StillAtWork) -> JSONResponse:
        detail = f"There is no answer yet: {error}; send this again for it."
        retry = {"Retry-After": "1"}
        return Problem("request_in_progress", detail, "Idempotency-Key", retry).response()

    @app.exception_handler(HTTPException)
    async def _framework(request: Request, error: HTTPException) -> JSONResponse:
        return _from_framework(request, error).response()

    @app.exception_handler(ClientDisconnect)
    async def _gone(_: Request, error: ClientDisconnect) -> Response:
        # Nobody hears it; the log has it, by nginx's name for a client that closed its request.
        return Response(status_code=CLIENT_CLOSED_REQUEST)

    @app.exception_handler(DiskFull)
    async def _disk_full(_: Request, error: DiskFull) -> JSONResponse:
        return insufficient_storage().response()

    for kind in TRANSIENT_KINDS:

        @app.exception_handler(kind)
        async def _away(request: Request, error: Exception) -> JSONResponse:
            if not is_transient(error):
                return await _unexpected(request, error)
            log.warning("%s %s: %s", request.method, request.url.path, logs.brief(error))
            return (insufficient_storage() if is_disk_full(error) else unavailable()).response()

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        detail = (
            "The service failed; its log says why. Try again, and tell the operator if it stays."
        )
        # This answer may pass by the layer that gives the others their id.
        headers = {REQUEST_ID: str(logs.bound().get("request", ""))}
        return Problem("internal_error", detail, headers=headers).response()


def unavailable() -> Problem:
    """Return the answer while the database or the store is away: nothing was done, ask again."""
    detail = "A part of the service is away; GET /readyz names it. Send this again."
    return Problem("unavailable", detail, headers={"Retry-After": "5"})


_WHERE = {
    "job": "GET /jobs lists the jobs",
    "sweep": "GET /sweeps lists the sweeps",
    "model": "POST /models uploads one",
    "dataset": "POST /datasets uploads one",
    "webhook": "GET /webhooks lists them",
    "delivery": "GET /webhooks/{id}/deliveries lists those of the webhook",
    "upload": "POST /uploads begins one",
    "artifact": "GET /jobs/{id}/artifacts lists those of the job",
    "architecture": "GET /architectures lists them",
    "method": "GET /methods lists them",
    "attack": "GET /attacks lists them",
    "key": "GET /keys lists them",
    "tenant": "GET /tenants lists them",
    "schema": "GET /schemas lists them",
    "signing_key": "GET /signing-keys lists them",
}


def _from_framework(request: Request, error: HTTPException) -> Problem:
    path = clip(request.url.path)
    match error.status_code:
        case HTTPStatus.NOT_FOUND:
            return Problem("not_found", f"There is no {path}. The calls are listed at /docs.")
        case HTTPStatus.METHOD_NOT_ALLOWED:
            taken = ", ".join(allowed(request.scope))
            detail = f"{path} does not take {request.method}, but {taken}."
            return Problem("method_not_allowed", detail, headers={"Allow": taken})
    raise error
