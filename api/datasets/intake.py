"""Taking in a data set: what its file may be, and its row."""

from dataclasses import asdict
from functools import partial

from sqlalchemy.orm import Session

from api.inspection import ArrayHeader, read_dataset_header
from api.services import Services
from api.sources.asking import Looked, begin
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


def summary_of(header: Arrays) -> tuple[Document, int]:
    """Return what a row keeps of the header, and the bytes of its arrays when inflated."""
    summary = {"arrays": {name: asdict(array) for name, array in header.items()}}
    return summary, sum(array.bytes for array in header.values())


def dataset_from(
    session: Session, services: Services, looked: Looked, said: Document | None = None
) -> Dataset:
    """Record a data set whose file is fetched from where it lies; raises `QuotaExceeded`."""
    dataset = create_dataset(
        session,
        filename=looked.filename,
        summary={"arrays": {}},
        sha256="",
        bytes=0,
        said=said,
        source=looked.source,
    )
    begin(session, services, looked, dataset)
    audit.record(session, "dataset.create", dataset.id, uri=looked.source["uri"])
    return dataset


def keep_dataset(
    session: Session,
    services: Services,
    upload: Upload[Arrays],
    said: Document | None = None,
) -> Dataset:
    """Make the staged file a blob and record it."""
    summary, inflated_bytes = summary_of(upload.header)
    kept = keep(session, services, upload.stored, inflated_bytes)
    dataset = create_dataset(
        session,
        filename=upload.filename,
        summary=summary,
        sha256=kept.sha256,
        bytes=kept.bytes,
        said=said,
    )
    audit.record(session, "dataset.create", dataset.id, sha256=kept.sha256)
    return dataset
