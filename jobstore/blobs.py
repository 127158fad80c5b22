"""The rows of blobs, and how a blob that nothing refers to is deleted safely.

Every blob has a row (`jobstore.tables.Blob`). Whoever stores one touches that row first and refers
to the blob within `UNSETTLED_S`; only a blob that was not touched for that long and that nothing
refers to is deleted, its object first, while its row is locked. So an upload of the same bytes
either comes before (the row is fresh) or waits for the lock and stores them anew: no reference ever
dangles.
"""

from collections.abc import Collection

from sqlalchemy import ColumnElement, delete, exists, func, or_, select, tuple_
from sqlalchemy.orm import Session

from jobstore.dialects import clock, upsert
from jobstore.objects import ObjectStore, blob_key
from jobstore.tables import Artifact, Blob, Dataset, Model

UNSETTLED_S = 3600.0
"""The longest that a blob may lie in the store before a row refers to it."""

_AT_ONCE = 100


def touch(session: Session, tenant: str, sha256: str, bytes: int) -> None:
    """Record that this blob is about to be stored and referred to; call it before storing."""
    row = {"tenant_id": tenant, "sha256": sha256, "bytes": bytes, "touched_at": clock()}
    upsert(session, Blob, row)


def stored_bytes(session: Session, tenant: str) -> int:
    """Return the bytes of the tenant's blobs that something refers to, each counted once."""
    total = select(func.coalesce(func.sum(Blob.bytes), 0))
    return int(session.scalars(total.where(Blob.tenant_id == tenant, is_referred_to())).one())


def delete_unreferenced(
    session: Session, store: ObjectStore, only: Collection[tuple[str, str]] | None = None
) -> int:
    """Delete up to a hundred blobs that nothing refers to, of all or of `only` (tenant, digest).

    Returns how many. Objects and rows go in this transaction: should it fail half-way, a row is
    left whose object is gone, which the next call deletes.
    """
    old = Blob.touched_at < clock(-UNSETTLED_S)
    candidates = select(Blob.tenant_id, Blob.sha256).where(old, ~is_referred_to())
    if only is not None:
        candidates = candidates.where(tuple_(Blob.tenant_id, Blob.sha256).in_(only))
    locked = candidates.limit(_AT_ONCE).with_for_update(skip_locked=True)
    found = [tuple(row) for row in session.execute(locked)]
    if not found:
        return 0
    # The question is asked again, because a reference from before the lock shows only now.
    among = tuple_(Blob.tenant_id, Blob.sha256).in_(found)
    unreferenced = session.execute(
        select(Blob.tenant_id, Blob.sha256).where(among, ~is_referred_to())
    ).all()
    for tenant, sha256 in unreferenced:
        store.delete(blob_key(sha256, tenant))
    gone = tuple_(Blob.tenant_id, Blob.sha256).in_([tuple(row) for row in unreferenced])
    session.execute(delete(Blob).where(gone), execution_options={"synchronize_session": False})
    return len(unreferenced)


def is_referred_to() -> ColumnElement[bool]:
    """Return the condition that a row refers to the blob of the surrounding query."""
    return or_(
        exists().where(*_same(Model), Model.expired_at.is_(None)),
        exists().where(*_same(Dataset), Dataset.expired_at.is_(None)),
        exists().where(*_same(Artifact)),
    )


def _same(kind: type[Model | Dataset | Artifact]) -> tuple[ColumnElement[bool], ...]:
    return kind.tenant_id == Blob.tenant_id, kind.sha256 == Blob.sha256
