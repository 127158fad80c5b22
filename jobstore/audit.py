"""The audit log: who did what, with which key, from where. Appended, chained, exported.

A record is appended in the transaction of what it tells of, so there is neither without the other.
That is one INSERT, which waits for nobody. Its place in a chain of hashes it gets afterwards:
`seal` takes what has been committed and, one sealer at a time, gives each record the next number
of its tenant's chain, the hash before it, and its own. The keeper seals every sweep, and whoever
reads the log seals first. Had each transaction to know the hash before its own, all of a tenant's
would wait for one row until they are committed.

A record's hash is the SHA-256 of its canonical JSON, `previous` included and `hash` left out.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, cast

from sqlalchemy import Select, Table, delete, func, insert, select
from sqlalchemy.orm import Session

from jobstore.cursors import decode_id, encode_cursor
from jobstore.dialects import clock, lock_sealing, now
from jobstore.ids import new_audit_id
from jobstore.tables import AuditChain, AuditRecord, Document
from jobstore.tables.audit import UNSEALED
from jobstore.tenancy import origin_of, tenant_of

DONE, REFUSED = "done", "refused"

NOBODYS = "-"
"""The chain of what is no tenant's; no tenant can have this name."""

KEEPER = "keeper"

GENESIS = "0" * 64
"""What stands for the hash before a chain's first record."""

_AT_ONCE = 500
# Old records go a day's at a time, since each time leaves a record of its own.
_EXPIRED_AT_ONCE_S = 86_400.0

# Built once and for the table, since every change of anything runs it.
_INSERT = insert(cast(Table, AuditRecord.__table__))


def record(
    session: Session,
    action: str,
    object: str | None = None,
    *,
    tenant: str | None = None,
    outcome: str = DONE,
    **detail: Any,
) -> None:
    """Append a record to the log of `tenant` (the session's) in this transaction.

    Who acts and from where is the session's origin (`Database.of`). `object` is an id, `detail`
    names and figures; neither may have a secret.
    """
    origin = origin_of(session)
    row = {
        "id": new_audit_id(),
        "tenant_id": tenant or tenant_of(session),
        "actor": origin.actor[:300],
        "action": action,
        "object": object[:255] if object else None,
        "address": origin.address,
        "request": origin.request,
        "outcome": outcome,
        "detail": detail or None,
    }
    session.execute(_INSERT, row)


def document_of(row: AuditRecord) -> Document:
    """Return the record as it is exported; its hash is that of everything else in it."""
    return {
        "id": row.id,
        "time": row.time.isoformat(),
        "tenant": row.tenant_id,
        "actor": row.actor,
        "action": row.action,
        "object": row.object,
        "address": row.address,
        "request": row.request,
        "outcome": row.outcome,
        "detail": row.detail,
        "seq": row.seq,
        "previous": row.previous,
        "hash": row.hash,
    }


def hash_of(document: Document) -> str:
    """Return the hash (hex) that a record is to have."""
    rest = {name: value for name, value in document.items() if name != "hash"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def seal(session: Session) -> int:
    """Chain some of the records that have been committed; returns how many, 0 once all are.

    The session is nobody's, since it seals every tenant's.
    """
    unsealed = select(AuditRecord).where(UNSEALED)
    if session.scalars(unsealed.with_only_columns(AuditRecord.id).limit(1)).first() is None:
        return 0
    lock_sealing(session)
    order = (AuditRecord.tenant_id, AuditRecord.id)
    rows = session.scalars(unsealed.order_by(*order).limit(_AT_ONCE)).all()
    for tenant, records in groupby(rows, key=lambda row: row.tenant_id):
        chain = _chain(session, tenant)
        for row in records:
            row.seq, row.previous = chain.seq + 1, chain.hash
            row.hash = hash_of(document_of(row))
            chain.seq, chain.hash = row.seq, row.hash
        chain.sealed_at = now(session)
    session.flush()
    return len(rows)


def _chain(session: Session, tenant: str) -> AuditChain:
    chain = session.get(AuditChain, tenant)
    if chain is None:
        ends = {"hash": GENESIS, "expired_seq": 0, "expired_hash": GENESIS}
        chain = AuditChain(tenant_id=tenant, seq=0, sealed_at=now(session), **ends)
        session.add(chain)
    return chain


def expire(session: Session, keep_s: float) -> int:
    """Delete the records of longer ago, of each chain from its beginning; returns how many.

    The chain goes on from the last one's hash, and says so in a record of its own.
    """
    lock_sealing(session)
    return sum(_expire(session, chain, keep_s) for chain in list_chains(session))


def _expire(session: Session, chain: AuditChain, keep_s: float) -> int:
    of_chain = AuditRecord.tenant_id == chain.tenant_id
    first = select(AuditRecord.time).where(of_chain, AuditRecord.seq == chain.expired_seq + 1)
    began = session.scalars(first).one_or_none()
    if began is None or began >= now(session, -keep_s - _EXPIRED_AT_ONCE_S):
        return 0
    kept = select(func.min(AuditRecord.seq)).where(of_chain, AuditRecord.time >= clock(-keep_s))
    last = (session.scalars(kept).one() or chain.seq + 1) - 1
    ends = select(AuditRecord.hash).where(of_chain, AuditRecord.seq == last)
    count, chain.expired_seq = last - chain.expired_seq, last
    chain.expired_hash = session.scalars(ends).one() or GENESIS
    session.execute(delete(AuditRecord).where(of_chain, AuditRecord.seq <= last))
    ended = chain.expired_hash
    record(session, "audit.expire", tenant=chain.tenant_id, seq=last, hash=ended)
    session.flush()
    return count


@dataclass(frozen=True)
class Filter:
    """Which records are asked for; None is any. Times are `since` <= time < `until`."""

    since: datetime | None = None
    until: datetime | None = None
    actor: str | None = None
    action: str | None = None
    outcome: str | None = None
    tenant: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether nothing is left out, but for other tenants."""
        return self == Filter(tenant=self.tenant)

    def narrow(self, query: Select[Any]) -> Select[Any]:
        """Add the conditions to a query of records."""
        if self.since is not None:
            query = query.where(AuditRecord.time >= self.since)
        if self.until is not None:
            query = query.where(AuditRecord.time < self.until)
        for column, value in (
            (AuditRecord.actor, self.actor),
            (AuditRecord.outcome, self.outcome),
            (AuditRecord.tenant_id, self.tenant),
        ):
            if value is not None:
                query = query.where(column == value)
        if self.action is not None:
            # "key" is key.create and key.revoke.
            inner = AuditRecord.action.startswith(f"{self.action}.", autoescape=True)
            query = query.where((AuditRecord.action == self.action) | inner)
        return query


@dataclass(frozen=True)
class AuditPage:
    """Some records, and the cursor of those after them (None: there are no more)."""

    records: Sequence[AuditRecord]
    next: str | None


def list_records(
    session: Session, which: Filter, *, limit: int = 100, cursor: str | None = None
) -> AuditPage:
    """Return a page of sealed records, newest first; raises `InvalidCursor`."""
    query = which.narrow(select(AuditRecord).where(AuditRecord.seq.is_not(None)))
    if cursor is not None:
        query = query.where(AuditRecord.id < decode_id(cursor, "aud_"))
    found = session.scalars(query.order_by(AuditRecord.id.desc()).limit(limit + 1)).all()
    page = found[:limit]
    return AuditPage(page, encode_cursor(page[-1].id) if len(found) > limit else None)


def list_chains(session: Session, tenant: str | None = None) -> list[AuditChain]:
    """Return where the chains stand, or that of one tenant."""
    query = select(AuditChain).order_by(AuditChain.tenant_id)
    if tenant is not None:
        query = query.where(AuditChain.tenant_id == tenant)
    return list(session.scalars(query))


def records_of(
    session: Session, chain: AuditChain, which: Filter, after: int
) -> Sequence[AuditRecord]:
    """Return the chain's next records after `after`, oldest first and up to its head.

    There are at most some hundreds; none: there are no more.
    """
    rows = (
        select(AuditRecord)
        .where(AuditRecord.tenant_id == chain.tenant_id)
        .where(AuditRecord.seq > after, AuditRecord.seq <= chain.seq)
        .order_by(AuditRecord.seq)
        .limit(_AT_ONCE)
    )
    return session.scalars(which.narrow(rows)).all()
