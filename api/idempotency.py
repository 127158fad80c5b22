"""`Idempotency-Key`: a POST that is sent twice acts once and is answered alike."""

import hashlib
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Header
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session

from api.problems import Problem
from api.strict_json import canonical
from jobstore.database import Database
from jobstore.errors import StillAtWork
from jobstore.idempotency import Answer, Request, abandon, begin, find, finish

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="Any unique text. For a day the same request under the same key is answered "
        "again without acting again; another one is refused with `idempotency_conflict`, and one "
        "that comes before the first is answered with `request_in_progress`.",
    ),
]

REPLAYED = {"Idempotent-Replayed": "true"}


def answer_once(
    database: Database,
    scope: str,
    key: str | None,
    request: Any,
    act: Callable[[Session], Answer],
    again: Callable[[dict[str, Any]], Problem] | None = None,
) -> JSONResponse:
    """Answer by `act`, in one transaction with storing its answer under `key`.

    `scope` is the call, `request` all of its content as JSON (files by their digest). A refusal is
    not kept: the same key may try again. An answer that is no use without what it shows once is not
    repeated: `again` makes a problem of what is kept of it.

    Raises `IdempotencyConflict` if the key was used for other content, `StillAtWork` while the
    first request is not answered, and what `again` returns.
    """
    if key is None:
        with database.write() as session:
            return _response(act(session))
    mine = Request.new(scope, key, _fingerprint(request))
    with database.write() as session:
        known = begin(session, mine)
    if known is not None:
        if again is not None:
            raise again(known.body)
        return _response(known, REPLAYED)
    try:
        with database.write() as session:
            answer = act(session)
            finish(session, mine, answer)
    except StillAtWork:
        raise
    except Exception:
        with database.write() as session:
            abandon(session, mine)
        raise
    return _response(answer)


def replayed(database: Database, scope: str, key: str | None, request: Any) -> JSONResponse | None:
    """Return what `answer_once` has answered before, for work that cannot be begun twice."""
    if key is None:
        return None
    with database.read() as session:
        known = find(session, scope, key, _fingerprint(request))
    return None if known is None else _response(known, REPLAYED)


def _fingerprint(request: Any) -> str:
    return hashlib.sha256(canonical(request)).hexdigest()


def _response(answer: Answer, more: dict[str, str] | None = None) -> JSONResponse:
    headers = {**answer.headers, **(more or {})}
    if answer.once:
        headers["Cache-Control"] = "no-store"
    return JSONResponse(_merged(answer.body, answer.once), answer.status, headers=headers)


def _merged(body: dict[str, Any], once: dict[str, Any]) -> dict[str, Any]:
    inner = {
        name: _merged(body[name], value) if isinstance(value, dict) else value
        for name, value in once.items()
    }
    return body | inner
