"""What their user says of a job, a model or a data set: its name, its labels, its metadata."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Select, delete, insert, select
from sqlalchemy.orm import Session

from jobstore.tables import Dataset, Document, Job, Label, Model

Described = Job | Model | Dataset


def set_labels(session: Session, row: Described, labels: dict[str, str]) -> None:
    """Give the row these labels and no others."""
    row.labels = labels
    # By its id, which finds those of every tenant.
    forget(session, [row.id])
    if labels:
        of_row = {"tenant_id": row.tenant_id, "object_id": row.id}
        rows = [of_row | {"key": key, "value": value} for key, value in labels.items()]
        session.execute(insert(Label), rows)


def describe(session: Session, row: Described, changes: Document) -> None:
    """Change what is among `changes`: `name`, `labels`, `metadata`, each as a whole."""
    if "name" in changes:
        row.name = changes["name"]
    if "metadata" in changes:
        row.notes = changes["metadata"]
    if "labels" in changes:
        set_labels(session, row, changes["labels"])
    session.flush()


def forget(session: Session, object_ids: Iterable[str]) -> None:
    """Delete the labels of what is deleted."""
    gone = delete(Label).where(Label.object_id.in_(object_ids))
    session.execute(gone, execution_options={"synchronize_session": False})


def labelled(query: Select[Any], kind: type[Any], labels: Iterable[tuple[str, str]]) -> Select[Any]:
    """Narrow a query of rows to those that have all these labels."""
    for key, value in labels:
        having = select(Label.object_id).where(Label.key == key, Label.value == value)
        query = query.where(kind.id.in_(having))
    return query
