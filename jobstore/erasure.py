"""Erasing a tenant: its jobs, files, keys and whatever else names it.

The tenant's row says that it goes (`erase_requested_at`), so that anybody may take over where a
killed keeper stopped: each step finds by itself what is left. From then on no key opens anything of
it, and no request that was let in before writes anything (`Database.write`). The row goes last.

The audit log stays: it is kept by a policy of its own.
"""

from contextlib import suppress
from itertools import chain

from sqlalchemy import Text, and_, cast, delete, exists, select
from sqlalchemy.orm import Session

from jobstore import incoming, metrics
from jobstore.database import Database
from jobstore.deletion import delete_job
from jobstore.dialects import forget_deleted, now
from jobstore.errors import NotFound
from jobstore.jobs import request_cancel
from jobstore.objects import CHECKPOINTS, ObjectStore, tenant_folder
from jobstore.states import FINAL
from jobstore.tables import (
    DEFAULT_TENANT,
    Base,
    IdempotencyKey,
    IncomingUpload,
    Job,
    Key,
    Tenant,
)
from jobstore.tenants import get_tenant

KEPT = "audit"
"""Tables whose names begin so are left alone."""

# A thousand jobs a call, so that the keeper's other work waits for seconds only.
_AT_ONCE, _ROUNDS = 100, 10
_UNSYNCED = {"synchronize_session": False}


def request_erasure(session: Session, name: str) -> Tenant:
    """Let the tenant go: its keys hold no longer, the keeper erases the rest; again: no change.

    Raises `NotFound`, and ValueError for the tenant that the service needs.
    """
    if name == DEFAULT_TENANT:
        raise ValueError("is whose everything is without keys, and the operator's: it cannot go")
    tenant = get_tenant(session, name)
    session.execute(delete(Key).where(Key.tenant_id == name))
    if tenant.erase_requested_at is None:
        tenant.erase_requested_at = now(session)
    session.flush()
    return tenant


def leaving(session: Session) -> list[str]:
    """Return the names of the tenants that are to be erased."""
    query = select(Tenant.id).where(Tenant.erase_requested_at.is_not(None))
    return list(session.scalars(query.order_by(Tenant.id)))


def erase(database: Database, store: ObjectStore, name: str) -> bool:
    """Erase what can be erased now; returns whether the tenant is gone.

    It is not while a job of it is at work (its worker is asked to end it), while a request that was
    let in before is not answered, and while there is more than one call's share: call it again. It
    may end anywhere, by an exception or with its process, and several may be at it at once.
    """
    if not _is_quiet(database, name):
        return False
    _cancel_jobs(database, name)
    _delete_jobs(database, store, name)
    if _has_jobs(database, name):
        return False
    _delete_uploads(database, store, name)
    for found in store.find(tenant_folder(name)):
        store.delete(found.key)
    with database.write() as session:
        _delete_rows(session, name)
    forget_deleted(database.engine)
    return True


def _is_quiet(database: Database, name: str) -> bool:
    """Tell whether no request of the tenant's writes: none that begins can, from now on."""
    row = select(Tenant.id).where(Tenant.id == name).with_for_update(skip_locked=True)
    with database.write() as session:
        return session.scalars(row).one_or_none() is not None


def _cancel_jobs(database: Database, name: str) -> None:
    asked = Job.cancel_requested_at.is_not(None)
    open_jobs = select(Job.id).where(Job.tenant_id == name, Job.state.not_in(FINAL), ~asked)
    while True:
        with database.write() as session:
            ids = session.scalars(open_jobs.limit(_AT_ONCE)).all()
            for job_id in ids:
                request_cancel(session, job_id)
        if not ids:
            return


def _delete_jobs(database: Database, store: ObjectStore, name: str) -> None:
    """Delete the jobs that have ended, the objects first: by its row a job's are found."""
    ended = select(Job.id).where(Job.tenant_id == name, Job.state.in_(FINAL)).limit(_AT_ONCE)
    for _ in range(_ROUNDS):
        with database.read() as session:
            ids = session.scalars(ended).all()
        if not ids:
            return
        for job_id in ids:
            # Also those that no row names any more.
            for found in store.find(f"{CHECKPOINTS}{job_id}/"):
                store.delete(found.key)
        with database.write() as session:
            for job_id in ids:
                with suppress(NotFound):  # Another keeper was faster.
                    delete_job(session, job_id)


def _has_jobs(database: Database, name: str) -> bool:
    with database.read() as session:
        return session.scalars(select(exists().where(Job.tenant_id == name))).one()


def _delete_uploads(database: Database, store: ObjectStore, name: str) -> None:
    """Delete what has arrived of uploads, and keep a direct one's URL from taking anything more."""
    some = select(IncomingUpload).where(IncomingUpload.tenant_id == name).limit(_AT_ONCE)
    while True:
        with database.read() as session:
            uploads = session.scalars(some).all()
            chunks = [incoming.sources(session, each) for each in uploads if not each.direct_key]
        if not uploads:
            return
        for chunk in chain(*chunks):
            store.delete(chunk.key)
        for upload in uploads:
            if upload.direct_key is not None:
                # Empty, under a random name: the keeper deletes it when the URL holds no longer.
                store.seal(upload.direct_key)
        with database.write() as session:
            for upload in uploads:
                incoming.delete_upload(session, upload.id)


def _delete_rows(session: Session, name: str) -> None:
    """Delete all rows that are the tenant's, in every table that says whose a row is."""
    for table in reversed(Base.metadata.sorted_tables):
        if "tenant_id" in table.c and not table.name.startswith(KEPT):
            session.execute(delete(table).where(table.c.tenant_id == name))
    metrics.forget(session, metrics.STORED_AT_MOST, tenant=name)
    # An admin, who is of another tenant, was answered with the name of the keys' tenant.
    body = cast(IdempotencyKey.body, Text)
    told = and_(IdempotencyKey.scope == "POST /keys", body.contains(f'"tenant": "{name}"'))
    session.execute(delete(IdempotencyKey).where(told), execution_options=_UNSYNCED)
    session.execute(delete(Tenant).where(Tenant.id == name), execution_options=_UNSYNCED)
