"""Every error as an RFC 9457 problem document with a stable `code`.

`CODES` is the one list of codes: the status and title of an answer follow from its code alone.
"""

import logging
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

from jobstore.errors import IdempotencyConflict, InvalidCursor, NotFound

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

CODES: dict[str, tuple[HTTPStatus, str]] = {
    "malformed_json": (HTTPStatus.BAD_REQUEST, "The body is not valid JSON"),
    "malformed_multipart": (HTTPStatus.BAD_REQUEST, "The multipart body cannot be read"),
    "missing_field": (HTTPStatus.UNPROCESSABLE_ENTITY, "A required field is missing"),
    "unknown_field": (HTTPStatus.UNPROCESSABLE_ENTITY, "A field is not known"),
    "invalid_value": (HTTPStatus.UNPROCESSABLE_ENTITY, "A value is not allowed"),
    "unknown_architecture": (HTTPStatus.UNPROCESSABLE_ENTITY, "The architecture is not known"),
    "unknown_method": (HTTPStatus.UNPROCESSABLE_ENTITY, "The method is not known"),
    "k_out_of_range": (HTTPStatus.UNPROCESSABLE_ENTITY, "k is out of range for this model"),
    "unsafe_pickle": (HTTPStatus.UNPROCESSABLE_ENTITY, "The pickle is more than tensors"),
    "torchscript_refused": (HTTPStatus.UNPROCESSABLE_ENTITY, "TorchScript is not accepted"),
    "malformed_model": (HTTPStatus.UNPROCESSABLE_ENTITY, "The model file cannot be read"),
    "tensor_mismatch": (
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "The tensors do not fit the architecture",
    ),
    "malformed_dataset": (HTTPStatus.UNPROCESSABLE_ENTITY, "The data set file cannot be read"),
    "object_array": (HTTPStatus.UNPROCESSABLE_ENTITY, "The data set holds Python objects"),
    "bad_array": (HTTPStatus.UNPROCESSABLE_ENTITY, "An array of the data set is not usable"),
    "dataset_too_large": (HTTPStatus.UNPROCESSABLE_ENTITY, "The data set inflates past the limit"),
    "idempotency_conflict": (
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "The idempotency key was used for another request",
    ),
    "file_too_large": (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The upload is too large"),
    "unsupported_media_type": (
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "The content type is not accepted here",
    ),
    "not_found": (HTTPStatus.NOT_FOUND, "Nothing is here"),
    "method_not_allowed": (HTTPStatus.METHOD_NOT_ALLOWED, "The method is not allowed here"),
    "already_finished": (HTTPStatus.CONFLICT, "The job has already ended"),
    "range_not_satisfiable": (
        HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
        "The range lies outside the file",
    ),
    "no_worker": (HTTPStatus.SERVICE_UNAVAILABLE, "No worker has announced itself yet"),
    "not_ready": (HTTPStatus.SERVICE_UNAVAILABLE, "A part of the service is not ready"),
    "internal_error": (HTTPStatus.INTERNAL_SERVER_ERROR, "The service failed"),
}


class ProblemDocument(BaseModel):
    """An RFC 9457 problem document."""

    type: str = Field(examples=["urn:atmc:problem:unknown_architecture"])
    title: str = Field(examples=["The architecture is not known"])
    status: int = Field(examples=[422])
    detail: str = Field(
        description="What was found, what is expected, and what to do next.",
        examples=["'lenet6' is not known. Known architectures: lenet, resnet34."],
    )
    code: str = Field(description="Stable and machine-readable.", examples=["unknown_architecture"])
    param: str | None = Field(
        description="The offending field (dotted path), part, array or tensor.",
        examples=["architecture"],
    )


class Problem(Exception):
    """A request that is refused: `code` is one of `CODES`, `detail` says what to do next."""

    def __init__(
        self,
        code: str,
        detail: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.status, self.title = CODES[code]
        self.detail = detail
        self.param = param
        self.headers = dict(headers or {})

    def document(self) -> ProblemDocument:
        return ProblemDocument(
            type=f"urn:atmc:problem:{self.code}",
            title=self.title,
            status=self.status,
            detail=self.detail,
            code=self.code,
            param=self.param,
        )

    def response(self) -> JSONResponse:
        return JSONResponse(
            self.document().model_dump(),
            status_code=self.status,
            headers=self.headers,
            media_type=MEDIA_TYPE,
        )


def documented(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route that may answer with these codes, for OpenAPI."""
    responses: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        status, title = CODES[code]
        entry = responses.setdefault(
            int(status), {"model": ProblemDocument, "description": status.phrase + ":"}
        )
        entry["description"] += f"\n- `{code}`: {title}"
    return responses


def invalid(errors: Iterable[Mapping[str, Any]], within: str | None = None) -> Problem:
    """Return the refusal that pydantic's first error amounts to; `within` is the field it is in."""
    error = next(iter(errors))
    # FastAPI puts the place (query, path, header, body) before the name.
    path = [str(part) for part in error["loc"] if part not in _PLACES]
    param = ".".join([within, *path] if within else path)
    match error["type"]:
        case "missing":
            return Problem("missing_field", f"{param!r} is required.", param)
        case "extra_forbidden":
            return Problem("unknown_field", f"{param!r} is not known; leave it out.", param)
    return Problem("invalid_value", f"{param!r}: {error['msg']}; got {_shown(error)}.", param)


_PLACES = ("query", "path", "header", "body")


def _shown(error: Mapping[str, Any]) -> str:
    text = repr(error["input"])
    return text if len(text) <= 100 else f"{text[:100]}…"


def install(app: FastAPI) -> None:
    """Make every error of `app`, the framework's own included, a problem document."""

    @app.exception_handler(Problem)
    async def _problem(_: Request, problem: Problem) -> JSONResponse:
        return problem.response()

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return invalid(error.errors()).response()

    @app.exception_handler(NotFound)
    async def _not_found(_: Request, error: NotFound) -> JSONResponse:
        detail = f"There is no {error.kind} {error.id!r}. {_WHERE[error.kind]}."
        return Problem("not_found", detail).response()

    @app.exception_handler(InvalidCursor)
    async def _invalid_cursor(_: Request, error: InvalidCursor) -> JSONResponse:
        detail = f"{error}; send the 'next' of the page before, or none for the first page."
        return Problem("invalid_value", detail, "cursor").response()

    @app.exception_handler(IdempotencyConflict)
    async def _conflict(_: Request, error: IdempotencyConflict) -> JSONResponse:
        detail = f"{error} with other content; choose a new key for a new request."
        return Problem("idempotency_conflict", detail, "Idempotency-Key").response()

    @app.exception_handler(HTTPException)
    async def _framework(request: Request, error: HTTPException) -> JSONResponse:
        return _from_framework(request, error).response()

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        detail = (
            "The service failed; its log says why. Try again, and tell the operator if it stays."
        )
        return Problem("internal_error", detail).response()


_WHERE = {
    "job": "GET /jobs lists the jobs",
    "model": "POST /models uploads one",
    "dataset": "POST /datasets uploads one",
    "artifact": "GET /jobs/{id}/artifacts lists those of the job",
    "architecture": "GET /architectures lists them",
    "method": "GET /methods lists them",
    "attack": "GET /attacks lists them",
}


def _from_framework(request: Request, error: HTTPException) -> Problem:
    path = request.url.path
    match error.status_code:
        case HTTPStatus.NOT_FOUND:
            return Problem("not_found", f"There is no {path}. The calls are listed at /docs.")
        case HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = ", ".join(method for method in _METHODS if _takes(request, method))
            detail = f"{path} does not take {request.method}, but {allowed}."
            return Problem("method_not_allowed", detail, headers={"Allow": allowed})
    raise error


_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def _takes(request: Request, method: str) -> bool:
    # The framework's own Allow header names the methods of one route, but a path may have several.
    scope = {**request.scope, "method": method}
    return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)
