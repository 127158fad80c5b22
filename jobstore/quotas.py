"""How much of the service one tenant may take up: jobs that wait, and bytes that are kept.

How many of its jobs run at once is the claim's to decide (`jobstore.leases`), how often it may ask
is counted in the broker (`jobstore.rates`).
"""

from sqlalchemy import bindparam, exists, func, select
from sqlalchemy.orm import Session

from jobstore.blobs import count_stored, is_referred_to, stored_at_most
from jobstore.dialects import lock_quota
from jobstore.errors import QuotaExceeded
from jobstore.objects import Stored
from jobstore.states import JobState
from jobstore.tables import UNDER_WAY, Blob, IncomingUpload, Job, Sweep, Transfer
from jobstore.tenancy import tenant_of


def check_queue(session: Session, limit: int | None) -> None:
    """Raise `QuotaExceeded` if the session's tenant has `limit` jobs waiting already."""
    if limit is None:
        return
    tenant = tenant_of(session)
    if _count_waiting(session, tenant) + _AT_ONCE < limit:
        return
    lock_quota(session, tenant)
    if _count_waiting(session, tenant) >= limit:
        raise QuotaExceeded("queued-jobs", limit, remaining=0)


# Jobs that are not committed yet are not counted, but each holds a connection, and a server has
# fewer connections than this: further from the limit, nobody needs to wait for other commits.
_AT_ONCE = 1000
_jobs = Job.__table__.c
_WAITING = select(func.count()).where(
    _jobs.tenant_id == bindparam("tenant"), _jobs.state == JobState.QUEUED
)


def _count_waiting(session: Session, tenant: str) -> int:
    return session.scalars(_WAITING, {"tenant": tenant}).one()


def check_sweeps(session: Session, limit: int | None) -> None:
    """Raise `QuotaExceeded` if the session's tenant has `limit` sweeps under way already.

    Their trials count as jobs once they are some: a sweep has as many jobs waiting as it may.
    """
    if limit is None:
        return
    tenant = tenant_of(session)
    lock_quota(session, tenant)
    running = select(func.count()).where(UNDER_WAY, Sweep.tenant_id == tenant)
    if session.scalars(running).one() >= limit:
        raise QuotaExceeded("running-sweeps", limit, remaining=0)


def check_incoming(session: Session, limit: int | None, bytes: int) -> None:
    """Raise `QuotaExceeded` if the session's tenant announced more than `limit` has room for.

    What is on its way counts as if it were there, so that announcing is no way around the limit.
    """
    if limit is None:
        return
    tenant = tenant_of(session)
    lock_quota(session, tenant)
    _check_room(session, tenant, limit, bytes)


def check_storage(
    session: Session, limit: int | None, new: Stored, inflated_bytes: int = 0
) -> None:
    """Raise `QuotaExceeded` if the session's tenant had more than `limit` bytes with `new`.

    So it is if `new` does not fit when it is inflated, as jobs have it. What is on its way counts
    here, too; an upload that has become `new` is forgotten before.
    """
    if limit is None:
        return
    tenant = tenant_of(session)
    lock_quota(session, tenant)
    same = (Blob.tenant_id == tenant, Blob.sha256 == new.sha256)
    if not session.scalars(select(exists().where(*same, is_referred_to()))).one():
        _check_room(session, tenant, limit, max(new.bytes, inflated_bytes))


def _check_room(session: Session, tenant: str, limit: int, bytes: int) -> None:
    coming = select(func.coalesce(func.sum(IncomingUpload.bytes), 0))
    coming = coming.where(IncomingUpload.tenant_id == tenant, IncomingUpload.closed_at.is_(None))
    fetched = select(func.coalesce(func.sum(Transfer.bytes), 0)).where(Transfer.tenant_id == tenant)
    announced = int(session.scalars(coming).one()) + int(session.scalars(fetched).one())
    if stored_at_most(session, tenant) + announced + bytes <= limit:
        return
    used = count_stored(session, tenant) + announced
    if used + bytes > limit:
        raise QuotaExceeded("stored-bytes", limit, remaining=max(0, limit - used))
