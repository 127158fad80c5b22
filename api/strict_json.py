"""JSON from outside: one object, no NaN, no broken Unicode, not too long."""

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from api.problems import Problem, invalid
from api.uploads.multipart import MAX_TEXT_BYTES, too_large

Body = TypeVar("Body", bound=BaseModel)


def is_json(request: Request) -> bool:
    """Tell whether the request says that its body is JSON."""
    media_type = request.headers.get("Content-Type", "").partition(";")[0]
    return media_type.strip().lower() == "application/json"


async def read_json(request: Request) -> dict[str, Any]:
    """Return the request's body; raises `malformed_json`, or `file_too_large` while it comes."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_TEXT_BYTES:
            raise too_large("The JSON body is larger", MAX_TEXT_BYTES)
    return parse_object(bytes(body))


async def read_body(request: Request, kind: type[Body]) -> Body:
    """Return the request's JSON body as a model; raises as `read_json`, and pydantic's refusals."""
    try:
        return kind.model_validate(await read_json(request))
    except ValidationError as error:
        raise invalid(error.errors()) from error


def parse_object(text: str | bytes) -> dict[str, Any]:
    """Return the JSON object in `text`; raises `malformed_json`."""
    try:
        document = json.loads(text)
        # Written again, infinities (1e999) and lone surrogates, which no store takes, show.
        canonical(document)
    except (ValueError, RecursionError) as error:
        raise Problem("malformed_json", f"The JSON cannot be read: {error}.") from error
    if not isinstance(document, dict):
        raise Problem("malformed_json", 'The JSON must be an object: {"method": ...}.')
    return document


def canonical(document: Any) -> bytes:
    """Return the one way to write a document; raises ValueError for what is not JSON."""
    return json.dumps(document, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()
