"""Answers by `Idempotency-Key`: a request that is sent twice acts once.

1. `begin` the request, in a transaction of its own: it says what was answered before, or that the
   key is this request's now. Whoever comes meanwhile is told that it is at work.
2. Do the work and `finish`, in one transaction: so there is no work without its answer.
3. If the work is refused, `abandon`: the key may be used again.

A process that dies between 1 and 2 leaves the key taken; after `STALE_S` another may take it over,
and the first, should it still live, can finish nothing any more.
"""

from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from sqlalchemy import ColumnElement, and_, delete, select, update
from sqlalchemy.orm import Session

from jobstore.dialects import clock, insert_if_absent, now
from jobstore.errors import IdempotencyConflict, StillAtWork
from jobstore.tables import IdempotencyKey
from jobstore.tenancy import tenant_of

KEPT_S = 86_400.0
"""How long an answer is replayed."""

STALE_S = 120.0


@dataclass(frozen=True)
class Answer:
    """An HTTP answer to replay, but for `once`: what of its body is shown once and kept nowhere."""

    status: int
    headers: dict[str, Any]
    body: dict[str, Any]
    once: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """A request under a key: `scope` is the call ("POST /jobs"), `key` its caller's.

    `fingerprint` is a SHA-256 (hex) of its content, `holder` tells it from another one like it.
    """

    scope: str
    key: str
    fingerprint: str
    holder: str

    @classmethod
    def new(cls, scope: str, key: str, fingerprint: str) -> "Request":
        """Return a request that nobody has begun."""
        return cls(scope, key, fingerprint, uuid4().hex)


def find(session: Session, scope: str, key: str, fingerprint: str) -> Answer | None:
    """Return what was answered before, None if nothing was, without taking the key.

    Raises `IdempotencyConflict` as `begin` does.
    """
    asked = Request(scope, key, fingerprint, holder="")
    fresh = IdempotencyKey.created_at >= clock(-KEPT_S)
    row = session.scalars(select(IdempotencyKey).where(_is(session, asked), fresh)).one_or_none()
    if row is None:
        return None
    _check_fingerprint(row, asked)
    return None if row.status is None else Answer(row.status, row.headers or {}, row.body or {})


def begin(session: Session, request: Request) -> Answer | None:
    """Return what was answered before; None if the key is this request's now, which is to act.

    Raises `IdempotencyConflict` if the key was used for other content, and `StillAtWork`.
    """
    mine = {"fingerprint": request.fingerprint, "holder": request.holder}
    names = {"tenant_id": tenant_of(session), "scope": request.scope, "key": request.key}
    insert_if_absent(session, IdempotencyKey, names | mine)
    row = session.scalars(
        select(IdempotencyKey).where(_is(session, request)).with_for_update()
    ).one()
    if row.holder == request.holder:
        return None
    expired = row.created_at < now(session, -KEPT_S)
    if not expired:
        _check_fingerprint(row, request)
    if not expired and row.status is not None:
        return Answer(row.status, row.headers or {}, row.body or {})
    if not expired and row.created_at >= now(session, -STALE_S):
        raise StillAtWork(f"the first {request.scope} under the key {request.key!r} is at work")
    fresh = {"created_at": clock(), "status": None, "headers": None, "body": None}
    session.execute(update(IdempotencyKey).where(_is(session, request)).values(**mine, **fresh))
    return None


def finish(session: Session, request: Request, answer: Answer) -> None:
    """Remember the answer; raises `StillAtWork` if another one has taken the key over."""
    held = and_(_is(session, request), IdempotencyKey.holder == request.holder)
    done = (
        update(IdempotencyKey)
        .where(held)
        .values(status=answer.status, headers=answer.headers, body=answer.body)
    )
    if session.execute(done.returning(IdempotencyKey.key)).one_or_none() is None:
        raise StillAtWork(f"{request.scope} took too long and was begun anew")


def abandon(session: Session, request: Request) -> None:
    """Give the key back: nothing was done."""
    held = and_(_is(session, request), IdempotencyKey.holder == request.holder)
    session.execute(delete(IdempotencyKey).where(held))


def forget_expired(session: Session, limit: int = 1000) -> bool:
    """Drop up to `limit` answers that are not replayed any more; returns whether there are more."""
    old = select(IdempotencyKey.created_at).where(IdempotencyKey.created_at < clock(-KEPT_S))
    moments = session.scalars(old.order_by(IdempotencyKey.created_at).limit(limit)).all()
    if moments:
        gone = delete(IdempotencyKey).where(IdempotencyKey.created_at <= moments[-1])
        session.execute(gone)
    return len(moments) == limit


def _check_fingerprint(row: IdempotencyKey, request: Request) -> None:
    if row.fingerprint != request.fingerprint:
        raise IdempotencyConflict(f"the key {request.key!r} was used for another {request.scope}")


def _is(session: Session, request: Request) -> ColumnElement[bool]:
    return and_(
        IdempotencyKey.tenant_id == tenant_of(session),
        IdempotencyKey.scope == request.scope,
        IdempotencyKey.key == request.key,
    )
