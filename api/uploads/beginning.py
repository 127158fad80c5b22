"""Begins and gives up uploads that come in several requests, within a tenant's room."""

from typing import Any

from api.services import Services
from api.uploads.multipart import too_large
from jobstore import audit, incoming
from jobstore.quotas import check_incoming
from jobstore.settings import Settings
from jobstore.tables import IncomingUpload


def begin(services: Services, **fields: Any) -> IncomingUpload:
    """Announce an upload; raises `DiskFull`, `QuotaExceeded`."""
    services.disk.check(fields["bytes"])
    with services.database.write() as session:
        check_incoming(session, services.terms.max_stored_bytes, fields["bytes"])
        lifetime_s = services.settings.upload_lifetime_s
        upload = incoming.create_upload(session, lifetime_s=lifetime_s, **fields)
        audit.record(session, "upload.create", upload.id, bytes=upload.bytes)
        return upload


def forget(services: Services, upload_id: str) -> None:
    """Give an upload up, and delete what has arrived; raises `NotFound`."""
    with services.database.write() as session:
        left = incoming.forget(session, incoming.get_upload(session, upload_id, lock=True))
        audit.record(session, "upload.delete", upload_id)
    left.clear(services.store)


def max_bytes(settings: Settings) -> int:
    """Return the most that any file may have."""
    return max(settings.max_model_bytes, settings.max_dataset_bytes)


def check_size(size: int, settings: Settings) -> None:
    """Raise `file_too_large` for a file that nothing could be made of."""
    if size > max_bytes(settings):
        raise too_large(f"The file has {size} bytes", max_bytes(settings))
