"""Finds what crashes left over, and audits the store by the rows.

Rows are the truth here, too: an object is kept because a row names it. Blobs are looked at a part
at a time, those of a tenant whose digests begin alike, because there may be more of them than
memory holds: a part of a million is four thousand.
"""

from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from jobstore.blobs import UNSETTLED_S
from jobstore.dialects import clock, insert_if_absent, now
from jobstore.incoming import staged_keys
from jobstore.objects import (
    CHECKPOINTS,
    STAGED,
    Found,
    ObjectStore,
    blob_folder,
    blob_key,
    read_blob_key,
)
from jobstore.tables import DEFAULT_TENANT, Artifact, Blob, Dataset, Job, Model, Product

_Kind = type[Blob] | type[Model] | type[Dataset] | type[Artifact] | type[Product]


@dataclass(frozen=True)
class Strays:
    """Leftovers of crashes: blobs without a row, and keys of other objects that no row names."""

    blobs: list[Found]
    keys: list[str]


def find_strays(session: Session, store: ObjectStore, *, upload_lifetime_s: float) -> Strays:
    """Look for what a killed process left of uploads, for old checkpoints that no row names, and
    for blobs without a row. A request may send its files for `upload_lifetime_s`.
    """
    settled = now(session) - timedelta(seconds=UNSETTLED_S)
    abandoned = settled - timedelta(seconds=upload_lifetime_s)
    left = [found.key for found in store.find(STAGED) if found.modified < abandoned]
    old = [found.key for found in store.find(CHECKPOINTS) if found.modified < settled]
    chunks, direct = staged_keys(session)
    named = named_checkpoints(session) | chunks | direct
    return Strays(
        blobs=[found for part in _parts(session, store) for found in part.strays(session, store)],
        keys=[key for key in (*left, *old) if key not in named],
    )


def adopt(session: Session, found: Iterable[Found]) -> None:
    """Give blobs a row, so that they are deleted like the others that nothing refers to."""
    for blob in found:
        if (names := read_blob_key(blob.key)) is not None:
            row = {"tenant_id": names[0], "sha256": names[1]}
            more = {"bytes": blob.bytes, "touched_at": blob.modified}
            insert_if_absent(session, Blob, row | more)


@dataclass(frozen=True)
class Audit:
    """How many objects lie in the store and how many of them rows name.

    `unsettled` objects are too young to be named yet; `unreferenced` are not named, `dangling` are
    named and not there: both are to be 0.
    """

    objects: int = 0
    references: int = 0
    unsettled: int = 0
    unreferenced: int = 0
    dangling: int = 0

    def __add__(self, other: "Audit") -> "Audit":
        """Count both together."""
        return Audit(*map(sum, zip(astuple(self), astuple(other), strict=True)))


def audit(session: Session, store: ObjectStore, *, upload_lifetime_s: float) -> Audit:
    """Hold the store against the rows: blobs, checkpoints, and uploads that are on their way."""
    settled = now(session) - timedelta(seconds=UNSETTLED_S)
    counts = _audit_others(session, store, settled, timedelta(seconds=upload_lifetime_s))
    for part in _parts(session, store):
        counts += part.audit(session, store, settled)
    return counts


def _audit_others(
    session: Session, store: ObjectStore, settled: datetime, lifetime: timedelta
) -> Audit:
    """Audit what is no blob: what is at work, so there is not much of it."""

    def named() -> set[str]:
        return named_checkpoints(session) | staged_keys(session)[0]

    references = named()
    # A direct upload is its owner's to put there: it may be missing, and its row says when it goes.
    _, direct = staged_keys(session)
    staged = [found for found in store.find(STAGED) if found.key not in direct]
    objects = {found.key: found for found in (*store.find(CHECKPOINTS), *staged)}
    loose = [found for key, found in objects.items() if key not in references]
    young = sum(
        found.modified >= (settled - lifetime if found.key.startswith(STAGED) else settled)
        for found in loose
    )
    # Looked for once more: what was stored or deleted meanwhile is no fault.
    missing = {key for key in references if key not in objects and not store.exists(key)}
    dangling = len(missing & named()) if missing else 0
    return Audit(len(objects), len(references), young, len(loose) - young, dangling)


def named_checkpoints(session: Session) -> set[str]:
    """Return the keys of all checkpoints that jobs name."""
    # Who has none has had no other one before.
    columns = (Job.checkpoint_key, Job.previous_checkpoint_key)
    query = select(*columns).where(Job.checkpoint_key.is_not(None))
    return {key for row in session.execute(query) for key in row if key is not None}


@dataclass(frozen=True, order=True)
class _Part:
    """The blobs of a tenant whose digests begin with `start`."""

    tenant: str
    start: str

    def of(self, kind: _Kind) -> tuple[ColumnElement[bool], ...]:
        """Return the conditions on rows that they name a blob of the part."""
        return kind.tenant_id == self.tenant, *self._begins(kind.sha256)

    def _begins(self, sha256: InstrumentedAttribute[Any]) -> tuple[ColumnElement[bool], ...]:
        # The letter is behind all that a digest is made of.
        return sha256 >= self.start, sha256 < f"{self.start}g"

    def find(self, store: ObjectStore) -> Iterator[Found]:
        return store.find(f"{blob_folder(self.tenant)}/{self.start}/")

    def strays(self, session: Session, store: ObjectStore) -> list[Found]:
        known = self._keys(session.scalars(select(Blob.sha256).where(*self.of(Blob))))
        return [found for found in self.find(store) if found.key not in known]

    def audit(self, session: Session, store: ObjectStore, settled: datetime) -> Audit:
        references = self._references(session)
        objects = {found.key: found for found in self.find(store)}
        loose = [found for key, found in objects.items() if key not in references]
        lately = select(Blob.sha256).where(*self.of(Blob), Blob.touched_at >= clock(-UNSETTLED_S))
        fresh = self._keys(session.scalars(lately)) if loose else set()
        young = sum(found.modified >= settled or found.key in fresh for found in loose)
        # Looked for once more: what was stored or deleted meanwhile is no fault.
        missing = {key for key in references if key not in objects and not store.exists(key)}
        dangling = len(missing & self._references(session)) if missing else 0
        return Audit(len(objects), len(references), young, len(loose) - young, dangling)

    def _references(self, session: Session) -> set[str]:
        keys = set[str]()
        for kind, condition in (
            (Model, Model.expired_at.is_(None)),
            (Dataset, Dataset.expired_at.is_(None)),
            (Artifact, None),
            (Product, None),
        ):
            query = select(kind.sha256).where(*self.of(kind)).distinct()
            query = query if condition is None else query.where(condition)
            keys |= self._keys(session.scalars(query))
        starts = select(Job.start_sha256).where(
            Job.tenant_id == self.tenant,
            *self._begins(Job.start_sha256),
            Job.finished_at.is_(None),
        )
        return keys | self._keys(each for each in session.scalars(starts) if each is not None)

    def _keys(self, digests: Iterable[str]) -> set[str]:
        return {blob_key(sha256, self.tenant) for sha256 in digests}


def _parts(session: Session, store: ObjectStore) -> list[_Part]:
    """Return the parts in which there is anything, in the store or in the rows."""
    parts = set[_Part]()
    for kind in (Blob, Model, Dataset, Artifact, Product):
        beginnings = select(kind.tenant_id, func.substr(kind.sha256, 1, 2)).distinct()
        # Of a product that is still made there are no bytes.
        beginnings = beginnings.where(kind.sha256.is_not(None))
        parts |= {_Part(tenant, start) for tenant, start in session.execute(beginnings)}
    others = {folder.split("/")[1] for folder in store.folders("tenants/")}
    for tenant in {DEFAULT_TENANT, *others}:
        below = store.folders(f"{blob_folder(tenant)}/")
        parts |= {_Part(tenant, folder.rstrip("/").rpartition("/")[2]) for folder in below}
    return sorted(parts)
