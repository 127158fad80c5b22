"""JSON from outside: one object in UTF-8, no NaN, no name twice, no broken Unicode, not too long.

Values are what JSON says they are: no number is read from a text, none from `true`.
"""

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from api.problems import Problem, invalid
from api.text import clip, shown
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
    return as_model(await read_json(request), kind)


def as_model(document: dict[str, Any], kind: type[Body], within: str | None = None) -> Body:
    """Return a JSON object as a model; raises pydantic's refusals as problems.

    `within` is the field that the object is in.
    """
    try:
        # Strict about JSON: a date is a text there, and a set is a list.
        return kind.model_validate_json(canonical(document), strict=True)
    except ValidationError as error:
        raise invalid(error.errors(), within) from error


def parse_object(text: str | bytes) -> dict[str, Any]:
    """Return the JSON object in `text`.

    Raises `malformed_json`, and `invalid_value` for another encoding than UTF-8 and for a name that
    comes twice in an object, since readers differ on both.
    """
    if isinstance(text, bytes) and not json.detect_encoding(text).startswith("utf-8"):
        # The standard library would read UTF-16 and UTF-32, which others read differently.
        raise Problem("invalid_value", "JSON comes in UTF-8 here; this is in another encoding.")
    try:
        document = json.loads(text, object_pairs_hook=_without_twins)
        # Written again, infinities (1e999) and lone surrogates, which no store takes, show.
        canonical(document)
    except (ValueError, RecursionError) as error:
        raise Problem("malformed_json", f"The JSON cannot be read: {error}.") from error
    if not isinstance(document, dict):
        raise Problem("malformed_json", 'The JSON must be an object: {"method": ...}.')
    return document


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object; raises `invalid_value` for a name that comes twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        detail = f"The name {shown(twice)} comes twice in an object; send it once."
        raise Problem("invalid_value", detail, clip(twice))
    return found


def canonical(document: Any) -> bytes:
    """Return the one way to write a document; raises ValueError for what is not JSON."""
    return json.dumps(document, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()
