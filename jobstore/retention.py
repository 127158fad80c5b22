"""Deletes what has expired, finds what crashes left over, and audits the store by the rows.

Rows are the truth here, too: an object is kept because a row names it. `expire` drops what is past
its tenant's terms, `jobstore.blobs` the bytes that nothing refers to after that; `find_strays`
is for what crashes left in the store, and `audit` counts.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, and_, delete, exists, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from jobstore import webhooks
from jobstore.blobs import UNSETTLED_S
from jobstore.dialects import clock, insert_if_absent, now
from jobstore.incoming import staged_keys
from jobstore.objects import CHECKPOINTS, STAGED, Found, ObjectStore, blob_key, read_blob_key
from jobstore.tables import Artifact, Blob, Dataset, Event, Job, Model, Tenant
from jobstore.terms import Terms

_AT_ONCE = 1000
_JOBS_AT_ONCE = 200
# What is younger than this may belong to a transaction that has not committed yet.
_SETTLED_S = 60.0
_UNSYNCED = {"synchronize_session": False}


@dataclass(frozen=True)
class Expired:
    """The keys of checkpoints that no row names any more, to delete after the commit.

    `more` says that there may be more to drop.
    """

    checkpoint_keys: list[str]
    more: bool


def expire(session: Session, tenant: str, terms: Terms) -> Expired:
    """Drop some of what the tenant has had for longer than its terms say.

    One transaction drops what belonged to a few hundred jobs at most, so nobody waits long for it:
    call it again, each time in a new transaction, until there is no `more`.
    """
    more = False
    if terms.keep_artifacts_s is not None:
        more |= _drop_of_ended(session, Artifact, tenant, terms.keep_artifacts_s)
    if terms.keep_events_s is not None:
        more |= _drop_of_ended(session, Event, tenant, terms.keep_events_s)
        more |= webhooks.forget_old(session, tenant, terms.keep_events_s, _AT_ONCE) == _AT_ONCE
    if terms.keep_uploads_s is not None:
        _expire_uploads(session, Model, Job.model_id, tenant, terms.keep_uploads_s)
        _expire_uploads(session, Dataset, Job.dataset_id, tenant, terms.keep_uploads_s)
    if terms.keep_checkpoints_s is None:
        return Expired([], more)
    return Expired(_forget_checkpoints(session, tenant, terms.keep_checkpoints_s), more)


def _forget_checkpoints(session: Session, tenant: str, keep_s: float) -> list[str]:
    old = (
        select(Job)
        .where(
            Job.tenant_id == tenant,
            Job.checkpoint_key.is_not(None),
            Job.finished_at < clock(-keep_s),
        )
        .limit(_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    keys = [key for job in session.scalars(old) for key in job.forget_checkpoints()]
    session.flush()
    return keys


_MARKS = {Artifact: Tenant.artifacts_expired_to, Event: Tenant.events_expired_to}


def _drop_of_ended(
    session: Session, kind: type[Artifact | Event], tenant: str, keep_s: float
) -> bool:
    """Drop what is left of the next jobs that ended long ago; returns whether there may be more.

    The tenant's mark says where to go on, because an ended job stays: without it every call would
    look at all jobs of former years.
    """
    mark = _MARKS[kind]
    reached = session.scalars(select(mark).where(Tenant.id == tenant)).one()
    # What ends right now may be committed later than what has ended after it.
    until = now(session, -max(keep_s, _SETTLED_S))
    ended = [Job.tenant_id == tenant, Job.finished_at <= until]
    if reached is not None:
        ended.append(Job.finished_at > reached)
    next_ones = select(Job.finished_at).where(*ended).order_by(Job.finished_at)
    moments = session.scalars(next_ones.limit(_JOBS_AT_ONCE)).all()
    if more := len(moments) == _JOBS_AT_ONCE:
        until = moments[-1] or until
        ended.append(Job.finished_at <= until)
    ids = session.scalars(select(Job.id).where(*ended)).all()
    gone = delete(kind).where(kind.job_id.in_(ids))
    session.execute(gone, execution_options=_UNSYNCED)
    reached_now = update(Tenant).where(Tenant.id == tenant).values({mark.key: until})
    session.execute(reached_now, execution_options=_UNSYNCED)
    return more


def _expire_uploads(
    session: Session,
    kind: type[Model | Dataset],
    reference: InstrumentedAttribute[str],
    tenant: str,
    keep_s: float,
) -> None:
    """Delete uploads that are old and unused; of those that only ended jobs used keep the row."""
    named = exists().where(reference == kind.id)
    old = (
        select(kind.id)
        .where(
            kind.tenant_id == tenant,
            kind.created_at < clock(-keep_s),
            or_(kind.expired_at.is_(None), ~named),
        )
        .limit(_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    ids = session.scalars(old.where(~_in_use(kind, reference, keep_s))).all()
    # The question is asked again, because a job that was queued before the lock shows only now.
    unused = and_(kind.id.in_(ids), ~_in_use(kind, reference, keep_s))
    gone = update(kind).where(unused, named).values(expired_at=clock())
    session.execute(gone, execution_options=_UNSYNCED)
    session.execute(delete(kind).where(unused, ~named), execution_options=_UNSYNCED)


def _in_use(
    kind: type[Model | Dataset], reference: InstrumentedAttribute[str], keep_s: float
) -> ColumnElement[bool]:
    # A job that has not ended has no such moment. Two questions, because each is one look at the
    # index by file and moment, and a file may have had a million jobs.
    return or_(
        exists().where(reference == kind.id, Job.finished_at.is_(None)),
        exists().where(reference == kind.id, Job.finished_at >= clock(-keep_s)),
    )


@dataclass(frozen=True)
class Strays:
    """Leftovers of crashes: blobs without a row, and keys of other objects that no row names."""

    blobs: list[Found]
    keys: list[str]


def find_strays(session: Session, store: ObjectStore, *, upload_lifetime_s: float) -> Strays:
    """Look for what a killed process left of uploads, for old checkpoints that no row names, and
    for blobs without a row. A request may send its files for `upload_lifetime_s`.
    """
    settled = now(session) - timedelta(seconds=UNSETTLED_S)
    abandoned = settled - timedelta(seconds=upload_lifetime_s)
    known = {blob_key(*row) for row in session.execute(select(Blob.sha256, Blob.tenant_id))}
    left = [found.key for found in store.find(STAGED) if found.modified < abandoned]
    old = [found.key for found in store.find(CHECKPOINTS) if found.modified < settled]
    chunks, direct = staged_keys(session)
    named = named_checkpoints(session) | chunks | direct
    return Strays(
        blobs=[found for found in _blobs(store) if found.key not in known],
        keys=[key for key in (*left, *old) if key not in named],
    )


def adopt(session: Session, found: Iterable[Found]) -> None:
    """Give blobs a row, so that they are deleted like the others that nothing refers to."""
    for blob in found:
        if (names := read_blob_key(blob.key)) is not None:
            row = {"tenant_id": names[0], "sha256": names[1]}
            more = {"bytes": blob.bytes, "touched_at": blob.modified}
            insert_if_absent(session, Blob, row | more)


@dataclass(frozen=True)
class Audit:
    """How many objects lie in the store and how many of them rows name.

    `unsettled` objects are too young to be named yet; `unreferenced` are not named, `dangling` are
    named and not there: both are to be 0.
    """

    objects: int
    references: int
    unsettled: int
    unreferenced: int
    dangling: int


def audit(session: Session, store: ObjectStore, *, upload_lifetime_s: float) -> Audit:
    """Hold the store against the rows: blobs, checkpoints, and uploads that are on their way."""
    settled = now(session) - timedelta(seconds=UNSETTLED_S)
    references = _references(session)
    # A direct upload is its owner's to put there: it may be missing, and its row says when it goes.
    _, direct = staged_keys(session)
    staged = [found for found in store.find(STAGED) if found.key not in direct]
    objects = {found.key: found for found in (*_blobs(store), *store.find(CHECKPOINTS), *staged)}
    loose = [found for key, found in objects.items() if key not in references]
    lately = select(Blob.sha256, Blob.tenant_id).where(Blob.touched_at >= clock(-UNSETTLED_S))
    fresh = {blob_key(*row) for row in session.execute(lately)}
    abandoned = settled - timedelta(seconds=upload_lifetime_s)
    unsettled = [
        found
        for found in loose
        if found.modified >= (abandoned if found.key.startswith(STAGED) else settled)
        or found.key in fresh
    ]
    # Looked for once more: what was stored or deleted meanwhile is no fault.
    missing = {key for key in references if key not in objects and not store.exists(key)}
    return Audit(
        objects=len(objects),
        references=len(references),
        unsettled=len(unsettled),
        unreferenced=len(loose) - len(unsettled),
        dangling=len(missing & _references(session)) if missing else 0,
    )


def _references(session: Session) -> set[str]:
    chunks, _ = staged_keys(session)
    keys = named_checkpoints(session) | chunks
    for kind, condition in (
        (Model, Model.expired_at.is_(None)),
        (Dataset, Dataset.expired_at.is_(None)),
        (Artifact, None),
    ):
        query = select(kind.sha256, kind.tenant_id).distinct()
        query = query if condition is None else query.where(condition)
        keys |= {blob_key(*row) for row in session.execute(query)}
    return keys


def named_checkpoints(session: Session) -> set[str]:
    """Return the keys of all checkpoints that jobs name."""
    # Who has none has had no other one before.
    columns = (Job.checkpoint_key, Job.previous_checkpoint_key)
    query = select(*columns).where(Job.checkpoint_key.is_not(None))
    return {key for row in session.execute(query) for key in row if key is not None}


def _blobs(store: ObjectStore) -> Iterator[Found]:
    for folder in ("blobs/", "tenants/"):
        yield from store.find(folder)
