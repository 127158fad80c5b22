"""Every error as an RFC 9457 problem document with a stable `code`.

`CODES` is the one list of codes: the status and title of an answer follow from its code alone.
"""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from api.text import clip, shown
from jobstore import traces

MEDIA_TYPE = "application/problem+json"

_PLACES = ("query", "path", "header", "body")

# The tus protocol has this status; no HTTP document does.
CHECKSUM_MISMATCH = 460

_TITLES: dict[int, dict[str, str]] = {
    HTTPStatus.BAD_REQUEST: {
        "malformed_json": "The body is not valid JSON",
        "malformed_multipart": "The multipart body cannot be read",
        "unknown_checksum": "The checksum's algorithm is not known",
    },
    HTTPStatus.UNAUTHORIZED: {
        "key_required": "A key is required",
        "key_invalid": "The key does not hold",
        "token_invalid": "The token does not hold",
        "token_expired": "The token has expired",
    },
    HTTPStatus.FORBIDDEN: {
        "scope_missing": "The key is not for this",
        "token_without_tenant": "The token names no tenant",
        "address_not_allowed": "The key is not for this address",
        "tenant_forbidden": "The key is for one tenant",
        "foreign_origin": "Without a key only this machine is answered",
    },
    HTTPStatus.NOT_FOUND: {"not_found": "Nothing is here"},
    HTTPStatus.METHOD_NOT_ALLOWED: {"method_not_allowed": "The method is not allowed here"},
    HTTPStatus.CONFLICT: {
        "already_finished": "The job or sweep has already ended",
        "nobody_is_asked": "No key is made where nobody is asked for one",
        "key_shown_once": "The key was made and shown before",
        "secret_shown_once": "The secret was made and shown before",
        "request_in_progress": "The first request under the idempotency key is not answered yet",
        "not_ended": "The job or sweep has not ended",
        "being_erased": "The tenant is being erased",
        "in_use": "A job or sweep needs it",
        "not_retryable": "The job cannot be queued again as it is",
        "offset_conflict": "The upload stands at another offset",
        "upload_incomplete": "The upload has not all arrived",
        "too_many_webhooks": "There are as many webhooks as may be",
        "webhook_disabled": "The webhook is switched off",
    },
    HTTPStatus.PRECONDITION_FAILED: {"unknown_tus_version": "The tus version is not spoken here"},
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: {"file_too_large": "The upload is too large"},
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: {
        "unsupported_media_type": "The content type is not accepted here",
    },
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: {
        "range_not_satisfiable": "The range lies outside the file",
    },
    HTTPStatus.UNPROCESSABLE_ENTITY: {
        "missing_field": "A required field is missing",
        "unknown_field": "A field is not known",
        "invalid_value": "A value is not allowed",
        "unknown_architecture": "The architecture is not known",
        "unknown_method": "The method is not known",
        "k_out_of_range": "k is out of range for this model",
        "too_many_trials": "The grid has more trials than may be",
        "unsuitable_start": "The job cannot start from that one",
        "unsafe_pickle": "The pickle is more than tensors",
        "torchscript_refused": "TorchScript is not accepted",
        "pt2_refused": "Exported programs are not accepted",
        "malformed_model": "The model file cannot be read",
        "tensor_mismatch": "The tensors do not fit the architecture",
        "several_state_dicts": "More than one state dict fits the architecture",
        "malformed_dataset": "The data set file cannot be read",
        "object_array": "The data set holds Python objects",
        "bad_array": "An array of the data set is not usable",
        "dataset_too_large": "The data set inflates past the limit",
        "idempotency_conflict": "The idempotency key was used for another request",
        "no_direct_uploads": "The store takes no direct uploads",
        "digest_mismatch": "The upload is not what was announced",
        "source_not_allowed": "No connection has this URI",
        "source_missing": "Nothing lies at the URI",
        "source_refused": "What lies at the URI is not given out",
        "source_changed": "What lies at the URI is another file",
        "source_unusable": "What lies at the URI cannot be used so",
    },
    HTTPStatus.TOO_MANY_REQUESTS: {
        "rate_limited": "Too many requests",
        "quota_exceeded": "The quota is used up",
    },
    CHECKSUM_MISMATCH: {"checksum_mismatch": "The checksum does not fit"},
    HTTPStatus.INTERNAL_SERVER_ERROR: {"internal_error": "The service failed"},
    HTTPStatus.INSUFFICIENT_STORAGE: {"insufficient_storage": "A disk of the service is full"},
    HTTPStatus.SERVICE_UNAVAILABLE: {
        "no_worker": "No worker has announced itself yet",
        "not_ready": "A part of the service is not ready",
        "unavailable": "A part of the service is away",
        "source_away": "The server of the URI does not answer",
        "provider_away": "The identity provider is away",
        "overloaded": "There is more to do than can be done in time",
    },
}
CODES: dict[str, tuple[int, str]] = {
    code: (status, title) for status, titles in _TITLES.items() for code, title in titles.items()
}

# Refusals that several calls share, for their documents.
FILE_CODES = (
    "malformed_multipart",
    "malformed_json",
    "file_too_large",
    "upload_incomplete",
    "digest_mismatch",
    "unsupported_media_type",
    "missing_field",
    "unknown_field",
    "invalid_value",
)
"""Refusals of any file, whether it comes in the request or by an upload."""
MODEL_CODES = (
    "unsafe_pickle",
    "torchscript_refused",
    "pt2_refused",
    "malformed_model",
    "tensor_mismatch",
    "several_state_dicts",
)
"""Refusals of a network's file by its content."""
SOURCE_CODES = (
    "source_not_allowed",
    "source_missing",
    "source_refused",
    "source_changed",
    "source_unusable",
    "source_away",
)
"""Refusals of a file that lies elsewhere."""
DATASET_CODES = ("malformed_dataset", "object_array", "bad_array", "dataset_too_large")
"""Refusals of a data set's file by its content."""
PIECE_CODES = (
    "missing_field",
    "invalid_value",
    "file_too_large",
    "unknown_tus_version",
    "unsupported_media_type",
    "unknown_checksum",
    "checksum_mismatch",
    "offset_conflict",
)
"""A piece of an upload."""
DESCRIBE_CODES = (
    "not_found",
    "malformed_json",
    "file_too_large",
    "unknown_field",
    "invalid_value",
)
"""A change of what is said of something."""
ANY_CODES = (
    "internal_error",
    "unavailable",
    "provider_away",
    "overloaded",
    "insufficient_storage",
)
"""What any request may be answered with."""
ONCE_CODES = ("idempotency_conflict", "request_in_progress")
"""A request with an `Idempotency-Key`."""


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
        """Return the body that says so."""
        return ProblemDocument(
            type=f"urn:atmc:problem:{self.code}",
            title=self.title,
            status=self.status,
            detail=self.detail,
            code=self.code,
            param=self.param,
        )

    def response(self) -> JSONResponse:
        """Return the answer that says so; the request's span has the code, too."""
        traces.current().annotate({"atmc.problem.code": self.code})
        return JSONResponse(
            self.document().model_dump(),
            status_code=self.status,
            headers=self.headers,
            media_type=MEDIA_TYPE,
        )


def insufficient_storage() -> Problem:
    """Return the answer while a disk is full: what is in this process's way is not the caller's."""
    detail = "A disk of the service is full. Tell the operator, and send this again later."
    return Problem("insufficient_storage", detail, headers={"Retry-After": "60"})


def documented(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route that may answer with these codes, for OpenAPI."""
    responses: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        status, title = CODES[code]
        entry = responses.setdefault(
            int(status), {"model": ProblemDocument, "description": _phrase(status) + ":"}
        )
        entry["description"] += f"\n- `{code}`: {title}"
    return responses


def _phrase(status: int) -> str:
    return "Checksum Mismatch" if status == CHECKSUM_MISMATCH else HTTPStatus(status).phrase


def invalid(errors: Iterable[Mapping[str, Any]], within: str | None = None) -> Problem:
    """Return the refusal that pydantic's first error amounts to; `within` is the field it is in."""
    error = next(iter(errors))
    # FastAPI puts the place (query, path, header, body) before the name.
    path = [str(part) for part in error["loc"] if part not in _PLACES]
    param = clip(".".join([within, *path] if within else path))
    match error["type"]:
        case "json_invalid":
            return Problem("malformed_json", f"The JSON cannot be read: {error['ctx']['error']}.")
        case "missing" if not param:
            return Problem("missing_field", "The request has no body; send JSON.")
        case "missing":
            return Problem("missing_field", f"{param!r} is required.", param)
        case "extra_forbidden":
            return Problem("unknown_field", f"{param!r} is not known; leave it out.", param)
    detail = f"{param!r}: {error['msg']}; got {shown(error['input'])}."
    return Problem("invalid_value", detail, param)
