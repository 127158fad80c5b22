"""How much of the service one tenant may take up: jobs that wait, and bytes that are kept.

How many of its jobs run at once is the claim's to decide (`jobstore.leases`), how often it may ask
is counted in the broker (`jobstore.rates`).
"""

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from jobstore.blobs import is_referred_to, stored_bytes
from jobstore.dialects import lock_quota
from jobstore.errors import QuotaExceeded
from jobstore.objects import Stored
from jobstore.states import JobState
from jobstore.tables import Blob, Job
from jobstore.tenancy import tenant_of


def check_queue(session: Session, limit: int | None) -> None:
    """Raise `QuotaExceeded` if the session's tenant has `limit` jobs waiting already."""
    if limit is None:
        return
    tenant = tenant_of(session)
    lock_quota(session, tenant)
    waiting = select(func.count()).where(Job.tenant_id == tenant, Job.state == JobState.QUEUED)
    if session.scalars(waiting).one() >= limit:
        raise QuotaExceeded("queued-jobs", limit, remaining=0)


def check_storage(session: Session, limit: int | None, new: Stored) -> None:
    """Raise `QuotaExceeded` if the session's tenant had more than `limit` bytes with `new`."""
    if limit is None:
        return
    tenant = tenant_of(session)
    lock_quota(session, tenant)
    same = (Blob.tenant_id == tenant, Blob.sha256 == new.sha256)
    if session.scalars(select(exists().where(*same, is_referred_to()))).one():
        return
    used = stored_bytes(session, tenant)
    if used + new.bytes > limit:
        raise QuotaExceeded("stored-bytes", limit, remaining=max(0, limit - used))
