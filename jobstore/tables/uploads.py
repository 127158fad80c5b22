"""Networks, data sets, the bytes of both, and what is still coming in."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from jobstore.dialects import clock
from jobstore.states import FileState
from jobstore.tables.base import (
    DEFAULT_TENANT,
    ID,
    SHA256,
    TENANT_ID,
    Base,
    Described,
    Document,
    Owned,
    listed_by,
)


class Fetched:
    """A file that may be fetched from elsewhere: `source` says whence, and how far it is.

    Before its `state` is `ready` it has no bytes, and no digest: an empty one.
    """

    state: Mapped[str] = mapped_column(String(16), server_default=FileState.READY)
    source: Mapped[Document | None]


class Model(Fetched, Described, Owned, Base):
    """An uploaded network: its bytes are the blob `sha256`; `summary` is what its header says.

    Once it has expired (`expired_at`) the bytes are gone and it stands for the jobs that used it.
    Those uploaded before there was a summary have an empty one.
    """

    __tablename__ = "models"
    __table_args__ = (
        *listed_by("models"),
        Index(None, "tenant_id", "sha256"),
        Index(None, "tenant_id", "id"),
    )

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    created_at: Mapped[datetime] = mapped_column(insert_default=clock())
    filename: Mapped[str] = mapped_column(Text)
    format: Mapped[str] = mapped_column(String(16))
    architecture: Mapped[str] = mapped_column(Text)
    normalization: Mapped[Document | None]
    summary: Mapped[Document] = mapped_column(server_default="{}")
    sha256: Mapped[str] = mapped_column(SHA256)
    bytes: Mapped[int]
    expired_at: Mapped[datetime | None]


class Dataset(Fetched, Described, Owned, Base):
    """An uploaded data set, like a `Model`; `summary` is what its headers say."""

    __tablename__ = "datasets"
    __table_args__ = (
        *listed_by("datasets"),
        Index(None, "tenant_id", "sha256"),
        Index(None, "tenant_id", "id"),
    )

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    created_at: Mapped[datetime] = mapped_column(insert_default=clock())
    filename: Mapped[str] = mapped_column(Text)
    summary: Mapped[Document]
    sha256: Mapped[str] = mapped_column(SHA256)
    bytes: Mapped[int]
    expired_at: Mapped[datetime | None]


class Blob(Owned, Base):
    """Bytes in the object store; see `jobstore.blobs`."""

    __tablename__ = "blobs"

    tenant_id: Mapped[str] = mapped_column(
        TENANT_ID, primary_key=True, server_default=DEFAULT_TENANT
    )
    sha256: Mapped[str] = mapped_column(SHA256, primary_key=True)
    bytes: Mapped[int]
    touched_at: Mapped[datetime]


class IncomingUpload(Owned, Base):
    """An upload that comes in several requests: `received` of `bytes` bytes have.

    A direct one has the digest that it must have and the key that its owner puts it under; a
    resumable one has chunks. Whatever is not used by `expires_at` is deleted. Of a direct one that
    was used or given up before, the row stays until then, closed: its URL still holds, so an empty
    object has to keep its place.
    """

    __tablename__ = "uploads"
    __table_args__ = (Index(None, "expires_at"),)

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    created_at: Mapped[datetime] = mapped_column(insert_default=clock())
    expires_at: Mapped[datetime]
    filename: Mapped[str] = mapped_column(Text)
    bytes: Mapped[int]
    received: Mapped[int]
    tus_metadata: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str | None] = mapped_column(SHA256)
    direct_key: Mapped[str | None] = mapped_column(Text)
    closed_at: Mapped[datetime | None]


class UploadChunk(Owned, Base):
    """A piece of a resumable upload: an object of its own."""

    __tablename__ = "upload_chunks"

    upload_id: Mapped[str] = mapped_column(ID, ForeignKey(IncomingUpload.id), primary_key=True)
    offset: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    key: Mapped[str] = mapped_column(Text)
    bytes: Mapped[int]
