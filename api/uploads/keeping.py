"""Makes a staged file the caller's own, if its quota has room."""

from sqlalchemy.orm import Session

from api.services import Services
from jobstore.blobs import touch
from jobstore.dialects import expect_a_wait
from jobstore.objects import Stored
from jobstore.quotas import check_storage
from jobstore.tenancy import tenant_of


def keep(session: Session, services: Services, staged: Stored, inflated_bytes: int = 0) -> Stored:
    """Make the file a blob; what refers to it has to be added in the same transaction.

    Raises `QuotaExceeded`, also for one that has no room when it is inflated.
    """
    check_storage(session, services.terms.max_stored_bytes, staged, inflated_bytes)
    touch(session, tenant_of(session), staged.sha256, staged.bytes)
    expect_a_wait(session)
    return services.store.keep(staged)
