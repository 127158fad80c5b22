"""Answers by `Idempotency-Key`: a request that is sent twice acts once.

The answer is stored in the transaction that does the work, so there is no half-way state:

1. `find` the answer; replay it if there is one.
2. Do the work and `store` its answer, in one transaction.
3. On `AlreadyAnswered` another request with the key was first: the transaction is rolled back by
   the exception; go to 1.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from jobstore.errors import AlreadyAnswered, IdempotencyConflict
from jobstore.tables import IdempotencyKey


@dataclass(frozen=True)
class Answer:
    """An HTTP answer to replay."""

    status: int
    headers: dict[str, Any]
    body: dict[str, Any]


def find(session: Session, scope: str, key: str, fingerprint: str) -> Answer | None:
    """Return what was answered to `key` in `scope` ("POST /jobs"), or None.

    `fingerprint` is a SHA-256 (hex) of the request's content; another one under the same key
    raises `IdempotencyConflict`.
    """
    row = session.get(IdempotencyKey, (scope, key))
    if row is None:
        return None
    if row.fingerprint != fingerprint:
        raise IdempotencyConflict(f"the key {key!r} was used for another {scope}")
    return Answer(row.status, row.headers, row.body)


def store(session: Session, scope: str, key: str, fingerprint: str, answer: Answer) -> None:
    """Remember the answer; raises `AlreadyAnswered` if another transaction was first."""
    session.add(IdempotencyKey(scope=scope, key=key, fingerprint=fingerprint, **vars(answer)))
    try:
        session.flush()
    except IntegrityError as error:
        raise AlreadyAnswered(f"{scope} {key!r}") from error
