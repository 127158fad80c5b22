"""Finds what a request names in the catalogue."""

from datetime import datetime

from sqlalchemy.orm import Session

from api.catalogue.specs import SpecReader
from api.problems import Problem
from jobstore.catalogue import list_entries, published_at
from jobstore.tables import CatalogueRow, Document


def find_architecture(session: Session, name: str) -> Document:
    """Return the document; raises `unknown_architecture` (listing the known), `no_worker`.

    A family's variants, `torchvision/resnet18`, share one document.
    """
    family, _, variant = name.partition("/")
    document = _find(session, "architecture", family)
    variants = document.get("variants")
    if variants is None and not variant:
        return document
    if variant not in (variants or []):
        known = f"Known: {', '.join(variants)}." if variants else f"{family!r} has no variants."
        raise Problem("unknown_architecture", f"{name!r} is not known. {known}", "architecture")
    return document


def find_spec_reader(session: Session, method: str) -> SpecReader:
    """Return that of the method; raises `unknown_method` (listing the known), `no_worker`."""
    # Read and made ready once for every time that it is published.
    published = published_at(session, "method", method) if method.isprintable() else None
    known = _readers.get(method)
    if known is None or known[0] != published:
        reader = SpecReader(method, _find(session, "method", method)["spec_schema"])
        known = _readers[method] = published, reader
    return known[1]


_readers: dict[str, tuple[datetime | None, SpecReader]] = {}


def _find(session: Session, kind: str, name: str) -> Document:
    # Not everything can be asked for: PostgreSQL fails on a text with a NUL in it.
    row = session.get(CatalogueRow, (kind, name)) if name.isprintable() else None
    if row is not None:
        return row.document
    known = ", ".join(entry.name for entry in list_entries(session, kind))
    if not known:
        raise Problem(
            "no_worker",
            "No worker has published what it can do yet. Start one, then send this again.",
            headers={"Retry-After": "5"},
        )
    raise Problem(f"unknown_{kind}", f"{name!r} is not known. Known: {known}.", kind)
