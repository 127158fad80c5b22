"""The catalogue of what a job may ask for: the workers publish it, the API reads it."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from jobstore.dialects import clock, upsert
from jobstore.errors import NotFound
from jobstore.tables import CatalogueRow


class CatalogueEntry(Protocol):
    """An entry as a worker publishes it; `atmc_core` has the class."""

    @property
    def kind(self) -> str:
        """One of "architecture", "method", "attack", "schema", "signing_key"."""

    @property
    def name(self) -> str:
        """Unique within the kind."""

    @property
    def document(self) -> dict[str, Any]:
        """JSON, as docs/interfaces/catalogue.md has it."""


def publish(session: Session, entries: Iterable[CatalogueEntry]) -> None:
    """Insert or replace the entries; safe when several workers start at once."""
    for entry in sorted(entries, key=lambda entry: (entry.kind, entry.name)):
        row = {
            "kind": entry.kind,
            "name": entry.name,
            "document": entry.document,
            "published_at": clock(),
        }
        upsert(session, CatalogueRow, row)


def get_entry(session: Session, kind: str, name: str) -> CatalogueRow:
    """Return one entry; raises `NotFound` with the kind."""
    row = session.get(CatalogueRow, (kind, name))
    if row is None:
        raise NotFound(kind, name)
    return row


def withdraw(session: Session, kind: str, name: str) -> None:
    """Delete one entry; raises `NotFound` with the kind."""
    session.delete(get_entry(session, kind, name))


def published_at(session: Session, kind: str, name: str) -> datetime | None:
    """Return when the entry was published, None without one; a reader then knows if it is stale."""
    return session.scalars(_PUBLISHED_AT, {"kind": kind, "name": name}).one_or_none()


_rows = CatalogueRow.__table__.c
_PUBLISHED_AT = select(_rows.published_at).where(
    _rows.kind == bindparam("kind"), _rows.name == bindparam("name")
)


def list_entries(session: Session, kind: str) -> list[CatalogueRow]:
    """Return the entries of a kind by name; empty until a worker has started."""
    query = select(CatalogueRow).where(CatalogueRow.kind == kind)
    return list(session.scalars(query.order_by(CatalogueRow.name)))
