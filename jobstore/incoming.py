"""Uploads that come in several requests: what has arrived of each, and where it lies.

A resumable upload arrives as chunks, objects of their own, whose rows are added together with the
new offset: two requests at the same offset write different objects, and one of them is told so. A
direct one is a single object that its owner puts into the store past us, once and in the announced
length (`jobstore.presigned`). Neither is a file yet: whoever uses it reads it through once, hashing
(see `sources`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from jobstore.dialects import clock, now
from jobstore.errors import NotFound, OffsetConflict
from jobstore.ids import new_upload_id
from jobstore.objects import ObjectStore, staged_key
from jobstore.tables import IncomingUpload, UploadChunk

URL_LIFETIME_S = 3600.0
"""So long a direct upload's URL holds; no longer than the upload itself."""

_SWEPT_AT_ONCE = 100


@dataclass(frozen=True)
class Leftovers:
    """The objects of an upload that is no more, to `clear` after the commit."""

    chunks: Sequence[str] = ()
    direct: str | None = None

    def clear(self, store: ObjectStore) -> None:
        """Delete the chunks; put an empty object in a direct upload's place."""
        for key in self.chunks:
            store.delete(key)
        if self.direct is not None:
            store.seal(self.direct)


@dataclass(frozen=True)
class Chunk:
    """A stored piece of an upload."""

    key: str
    bytes: int


def create_upload(
    session: Session,
    *,
    filename: str,
    bytes: int,
    lifetime_s: float,
    metadata: str = "",
    sha256: str | None = None,
) -> IncomingUpload:
    """Announce an upload of `bytes` bytes; with a `sha256` it is put into the store directly."""
    upload_id = new_upload_id()
    upload = IncomingUpload(
        id=upload_id,
        expires_at=now(session, lifetime_s),
        filename=filename,
        bytes=bytes,
        received=0,
        tus_metadata=metadata,
        sha256=sha256,
        direct_key=None if sha256 is None else staged_key(),
    )
    session.add(upload)
    session.flush()
    return upload


def get_upload(session: Session, upload_id: str, *, lock: bool = False) -> IncomingUpload:
    """Return the upload; raises `NotFound`, also once it has expired or is closed."""
    query = select(IncomingUpload).where(
        IncomingUpload.id == upload_id,
        IncomingUpload.expires_at > clock(),
        IncomingUpload.closed_at.is_(None),
    )
    if lock:
        query = query.with_for_update()
    options = {"populate_existing": True}
    upload = session.scalars(query, execution_options=options).one_or_none()
    if upload is None:
        raise NotFound("upload", upload_id)
    return upload


def append(session: Session, upload_id: str, offset: int, chunks: Sequence[Chunk]) -> int:
    """Add stored chunks at `offset`; returns the new offset.

    Raises `NotFound`, and `OffsetConflict` if another request was first: then the chunks are the
    caller's to delete.
    """
    upload = get_upload(session, upload_id, lock=True)
    if upload.received != offset:
        raise OffsetConflict(upload_id, upload.received)
    for chunk in chunks:
        row = UploadChunk(upload_id=upload_id, offset=offset, key=chunk.key, bytes=chunk.bytes)
        session.add(row)
        offset += chunk.bytes
    upload.received = offset
    return offset


def sources(session: Session, upload: IncomingUpload) -> list[Chunk]:
    """Return the objects that the upload consists of, in order."""
    if upload.direct_key is not None:
        return [Chunk(upload.direct_key, upload.bytes)]
    query = select(UploadChunk).where(UploadChunk.upload_id == upload.id)
    rows = session.scalars(query.order_by(UploadChunk.offset))
    return [Chunk(row.key, row.bytes) for row in rows]


def forget(session: Session, upload: IncomingUpload) -> Leftovers:
    """Delete the upload's rows, or close a direct one until its URL holds no longer."""
    if upload.direct_key is not None:
        upload.closed_at, upload.expires_at = now(session), now(session, URL_LIFETIME_S)
        return Leftovers(direct=upload.direct_key)
    return Leftovers(_delete(session, upload))


def _delete(session: Session, upload: IncomingUpload) -> list[str]:
    keys = [source.key for source in sources(session, upload)]
    session.execute(delete(UploadChunk).where(UploadChunk.upload_id == upload.id))
    session.delete(upload)
    return keys


def delete_upload(session: Session, upload_id: str) -> None:
    """Delete the rows of an upload whose objects are gone; it is no error if there are none."""
    session.execute(delete(UploadChunk).where(UploadChunk.upload_id == upload_id))
    session.execute(delete(IncomingUpload).where(IncomingUpload.id == upload_id))


def staged_keys(session: Session) -> tuple[set[str], set[str]]:
    """Return the keys of stored chunks, and those under which a direct upload may lie or not."""
    direct = select(IncomingUpload.direct_key).where(IncomingUpload.direct_key.is_not(None))
    chunks = set(session.scalars(select(UploadChunk.key)))
    return chunks, {key for key in session.scalars(direct) if key is not None}


def forget_expired(session: Session) -> list[str]:
    """Delete the rows of uploads that were abandoned or closed; returns their objects' keys.

    Delete these after the commit.
    """
    query = (
        select(IncomingUpload)
        .where(IncomingUpload.expires_at <= clock())
        .order_by(IncomingUpload.expires_at)
        .limit(_SWEPT_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    return [key for upload in session.scalars(query) for key in _delete(session, upload)]
