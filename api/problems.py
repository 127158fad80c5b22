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
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

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
