"""Models and data sets: what a job compresses, and on what."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import bindparam, func, or_, select
from sqlalchemy.orm import Session

from jobstore import metrics
from jobstore.errors import Expired, NotFetched, NotFound
from jobstore.ids import new_dataset_id, new_model_id
from jobstore.labels import describe
from jobstore.listing import ALL, Which, page_of
from jobstore.states import FileState
from jobstore.tables import Dataset, Document, Model

Row = TypeVar("Row", Model, Dataset)

_PREFIXES: dict[type[Any], str] = {Model: "mdl_", Dataset: "dst_"}


def create_model(
    session: Session,
    *,
    filename: str,
    format: str,
    architecture: str,
    normalization: dict[str, Any] | None,
    summary: dict[str, Any],
    sha256: str,
    bytes: int,
    said: Document | None = None,
    source: Document | None = None,
) -> Model:
    """Record an uploaded network whose blob is stored; `format` is "safetensors" or "torch".

    `summary` is what its header says: the dimensions that its architecture leaves open, by name,
    and `dense_weights`, the number of weights that can be compressed. `said` is what its user says
    of it (`jobstore.labels.describe`). With a `source` it is one whose file is still to be fetched
    (`jobstore.transfers`): then nothing is known of that.
    """
    model = Model(
        id=new_model_id(),
        filename=filename,
        format=format,
        architecture=architecture,
        normalization=normalization,
        summary=summary,
        sha256=sha256,
        bytes=bytes,
        **_fetched(source),
    )
    _add(session, model, said)
    if source is None:
        count(session, model)
    return model


def get_model(session: Session, model_id: str, *, lock: bool = False) -> Model:
    """Return the model; raises `NotFound`."""
    model = session.get(Model, model_id, with_for_update=lock or None, populate_existing=lock)
    if model is None:
        raise NotFound("model", model_id)
    return model


def create_dataset(
    session: Session,
    *,
    filename: str,
    summary: dict[str, Any],
    sha256: str,
    bytes: int,
    said: Document | None = None,
    source: Document | None = None,
) -> Dataset:
    """Record an uploaded data set whose blob is stored; `said` is as `create_model` has it."""
    dataset = Dataset(
        id=new_dataset_id(),
        filename=filename,
        summary=summary,
        sha256=sha256,
        bytes=bytes,
        **_fetched(source),
    )
    _add(session, dataset, said)
    if source is None:
        count(session, dataset)
    return dataset


def get_dataset(session: Session, dataset_id: str, *, lock: bool = False) -> Dataset:
    """Return the data set; raises `NotFound`."""
    dataset = session.get(Dataset, dataset_id, with_for_update=lock or None, populate_existing=lock)
    if dataset is None:
        raise NotFound("dataset", dataset_id)
    return dataset


@dataclass(frozen=True)
class UploadPage(Generic[Row]):
    """Some uploads, and the cursor of those after them (None: no more)."""

    rows: Sequence[Row]
    next: str | None


def list_uploads(
    session: Session,
    kind: type[Row],
    which: Which = ALL,
    *,
    q: str | None = None,
    sha256: str | None = None,
    state: FileState | None = None,
) -> UploadPage[Row]:
    """Return a page of the models or data sets that have not expired, in the order of `which`.

    `q` is a part of the name, the file's name or the id, in small or capital letters; `sha256` that
    of its bytes. Raises `InvalidCursor`.
    """
    query = select(kind).where(kind.expired_at.is_(None))
    if q is not None:
        names = (kind.name, kind.filename)
        named = or_(*(func.lower(n).contains(q.lower(), autoescape=True) for n in names))
        query = query.where(named | kind.id.contains(q.lower(), autoescape=True))
    if state is not None:
        query = query.where(kind.state == state)
    if sha256 is not None:
        query = query.where(kind.sha256 == sha256)
    return UploadPage(*page_of(session, query, kind, _PREFIXES[kind], which))


def hold_uploads(session: Session, model_id: str, dataset_id: str) -> tuple[Model, Dataset]:
    """Return the model and the data set, which cannot expire before this transaction ends.

    Raises `NotFound`, `Expired` if one has, and `NotFetched` if one could not be.
    """
    found = session.execute(_HELD, {"model": model_id, "dataset": dataset_id}).one_or_none()
    if found is None:
        get_model(session, model_id)
        raise NotFound("dataset", dataset_id)
    model, dataset = found
    if model.expired_at is not None:
        raise Expired("model", model_id)
    if dataset.expired_at is not None:
        raise Expired("dataset", dataset_id)
    for kind, row in (("model", model), ("dataset", dataset)):
        if row.state == FileState.FAILED:
            raise NotFetched(kind, row.id)
    return model, dataset


# Every new job asks this: put together once, as that takes as long as to ask.
_HELD = (
    select(Model, Dataset)
    .join(Dataset, Dataset.id == bindparam("dataset"))
    .where(Model.id == bindparam("model"))
    .with_for_update(read=True)
    .execution_options(populate_existing=True)
)


def _add(session: Session, row: Model | Dataset, said: Document | None) -> None:
    # Said here, since what only the database knows would be asked for again.
    row.labels, row.notes = {}, {}
    session.add(row)
    session.flush()
    describe(session, row, said or {})


def _fetched(source: Document | None) -> Document:
    return {"source": source, "state": FileState.READY if source is None else FileState.FETCHING}


def count(session: Session, row: Model | Dataset) -> None:
    """Count a file that has arrived among the service's figures."""
    kind = "model" if isinstance(row, Model) else "dataset"
    metrics.count(session, metrics.UPLOADS, kind=kind)
    metrics.count(session, metrics.UPLOADED_BYTES, row.bytes, kind=kind)
