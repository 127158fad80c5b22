"""Taking in a data set: what its file may be, and its row."""

from dataclasses import asdict
from functools import partial

from sqlalchemy.orm import Session

from api.inspection import ArrayHeader, read_dataset_header
from api.services import Services
from api.uploads.keeping import keep
from api.uploads.receiving import FileRule, Upload
from jobstore import audit
from jobstore.settings import Settings
from jobstore.tables import Dataset, Document
from jobstore.uploads import create_dataset

Arrays = dict[str, ArrayHeader]


def dataset_rule(part: str, settings: Settings) -> FileRule[Arrays]:
    """Return what the file of a data set in the part `part` must pass."""
    look = partial(read_dataset_header, max_inflated_bytes=settings.max_inflated_bytes)
    return FileRule(part, settings.max_dataset_bytes, look, "malformed_dataset")


def keep_dataset(
    session: Session,
    services: Services,
    upload: Upload[Arrays],
    said: Document | None = None,
) -> Dataset:
    """Make the staged file a blob and record it."""
    inflated_bytes = sum(array.bytes for array in upload.header.values())
    kept = keep(session, services, upload.stored, inflated_bytes)
    dataset = create_dataset(
        session,
        filename=upload.filename,
        summary={"arrays": {name: asdict(array) for name, array in upload.header.items()}},
        sha256=kept.sha256,
        bytes=kept.bytes,
        said=said,
    )
    audit.record(session, "dataset.create", dataset.id, sha256=kept.sha256)
    return dataset
