"""The rows of blobs, and how a blob that nothing refers to is deleted safely.

Every blob has a row (`jobstore.tables.Blob`). Whoever stores one touches that row first and refers
to the blob within `UNSETTLED_S`; only a blob that was not touched for that long and that nothing
refers to is deleted, its object first, while its row is locked. So an upload of the same bytes
either comes before (the row is fresh) or waits for the lock and stores them anew: no reference ever
dangles.
"""

from collections.abc import Collection

from sqlalchemy import ColumnElement, and_, delete, exists, false, func, or_, select, tuple_
from sqlalchemy.orm import Session

from jobstore import metrics
from jobstore.dialects import clock, upsert
from jobstore.objects import ObjectStore, blob_key
from jobstore.tables import Artifact, Blob, Dataset, Job, Model, Product

UNSETTLED_S = 3600.0
"""The longest that a blob may lie in the store before a row refers to it."""

_AT_ONCE = 1000


def touch(session: Session, tenant: str, sha256: str, bytes: int) -> None:
    """Record that this blob is about to be stored and referred to; call it before storing."""
    metrics.count(session, metrics.STORED_AT_MOST, bytes, tenant=tenant)
    row = {"tenant_id": tenant, "sha256": sha256, "bytes": bytes, "touched_at": clock()}
    upsert(session, Blob, row)


def stored_at_most(session: Session, tenant: str) -> int:
    """Return a number that `stored_bytes` does not exceed, without counting.

    It adds up what was ever about to be stored, and is put right by `count_stored`.
    """
    known = metrics.counters(session, metrics.STORED_AT_MOST, tenant=tenant)
    return int(sum(known.values()))


def count_stored(session: Session, tenant: str) -> int:
    """Return `stored_bytes`, and let `stored_at_most` be that when the transaction commits."""
    # First what is known, then the count: what is added in between is in both, so never in none.
    known = stored_at_most(session, tenant)
    counted = stored_bytes(session, tenant)
    metrics.count(session, metrics.STORED_AT_MOST, counted - known, tenant=tenant)
    return counted


def stored_bytes(session: Session, tenant: str) -> int:
    """Return the bytes of the tenant's blobs that something refers to, each counted once.

    That is a look at each of them.
    """
    total = select(func.coalesce(func.sum(Blob.bytes), 0))
    return int(session.scalars(total.where(Blob.tenant_id == tenant, is_referred_to())).one())


Place = tuple[str, str]
"""A tenant and a digest: where a walk through all blobs has come."""


START: Place = ("", "")

_place = tuple_(Blob.tenant_id, Blob.sha256)


def walk_on(session: Session, after: Place) -> list[Place]:
    """Return the next thousand blobs or fewer, in the order of a walk that begins at `START`."""
    query = select(Blob.tenant_id, Blob.sha256).where(_place > tuple_(*after))
    step = query.order_by(Blob.tenant_id, Blob.sha256).limit(_AT_ONCE)
    return [(tenant, sha256) for tenant, sha256 in session.execute(step)]


def _are(places: Collection[Place]) -> ColumnElement[bool]:
    # By tenants, so that the database looks each of them up: it does not know how few pairs are.
    digests: dict[str, list[str]] = {}
    for tenant, sha256 in places:
        digests.setdefault(tenant, []).append(sha256)
    return or_(
        false(), *(and_(Blob.tenant_id == t, Blob.sha256.in_(some)) for t, some in digests.items())
    )


def known(session: Session, among: Collection[Place]) -> set[Place]:
    """Return those of these blobs that there is a row of."""
    query = select(Blob.tenant_id, Blob.sha256).where(_are(among))
    return {(tenant, sha256) for tenant, sha256 in session.execute(query)}


def delete_unreferenced(session: Session, store: ObjectStore, among: Collection[Place]) -> int:
    """Delete those of these blobs that nothing refers to; returns how many.

    Objects and rows go in this transaction: should it fail half-way, a row is left whose object is
    gone, which the next call deletes.
    """
    old = Blob.touched_at < clock(-UNSETTLED_S)
    candidates = select(Blob.tenant_id, Blob.sha256).where(_are(among), old, ~is_referred_to())
    locked = candidates.with_for_update(skip_locked=True)
    found = [(tenant, sha256) for tenant, sha256 in session.execute(locked)]
    if not found:
        return 0
    # The question is asked again, because a reference from before the lock shows only now.
    still = select(Blob.tenant_id, Blob.sha256).where(_are(found), ~is_referred_to())
    gone = [(tenant, sha256) for tenant, sha256 in session.execute(still)]
    for tenant, sha256 in gone:
        store.delete(blob_key(sha256, tenant))
    done = delete(Blob).where(_are(gone))
    session.execute(done, execution_options={"synchronize_session": False})
    return len(gone)


def is_referred_to() -> ColumnElement[bool]:
    """Return the condition that a row refers to the blob of the surrounding query."""
    return or_(
        exists().where(*_same(Model), Model.expired_at.is_(None)),
        exists().where(*_same(Dataset), Dataset.expired_at.is_(None)),
        exists().where(*_same(Artifact)),
        exists().where(*_same(Product)),
        # A file that a job starts from, until it has ended.
        exists().where(
            Job.tenant_id == Blob.tenant_id,
            Job.start_sha256 == Blob.sha256,
            Job.finished_at.is_(None),
        ),
    )


def _same(kind: type[Model | Dataset | Artifact | Product]) -> tuple[ColumnElement[bool], ...]:
    return kind.tenant_id == Blob.tenant_id, kind.sha256 == Blob.sha256
