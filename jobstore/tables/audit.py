"""The audit log, and where its chains stand."""

from datetime import datetime

from sqlalchemy import Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from jobstore.dialects import clock
from jobstore.tables.base import ID, SHA256, TENANT_ID, Base, Document, Owned, only_where

# The sealing must use the index's own words, or the database does not use the index.
UNSEALED = text("seq IS NULL")


class AuditRecord(Owned, Base):
    """What somebody did to the service; see `jobstore.audit`.

    `seq`, `previous` and `hash` are its place in its tenant's chain. They are None until it is
    sealed, seconds after its transaction.
    """

    __tablename__ = "audit"
    __table_args__ = (
        Index(None, "tenant_id", "seq", unique=True),
        Index(None, "tenant_id", "id"),
        Index("ix_audit_unsealed", "tenant_id", "id", **only_where(UNSEALED)),
    )

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    time: Mapped[datetime] = mapped_column(insert_default=clock())
    actor: Mapped[str] = mapped_column(String(300))
    action: Mapped[str] = mapped_column(String(64))
    object: Mapped[str | None] = mapped_column(String(255))
    address: Mapped[str | None] = mapped_column(String(64))
    request: Mapped[str | None] = mapped_column(String(64))
    outcome: Mapped[str] = mapped_column(String(16))
    detail: Mapped[Document | None]
    seq: Mapped[int | None]
    previous: Mapped[str | None] = mapped_column(SHA256)
    hash: Mapped[str | None] = mapped_column(SHA256)


class AuditChain(Base):
    """Where a tenant's chain stands: its newest record, and the last of those that have expired."""

    __tablename__ = "audit_chains"

    tenant_id: Mapped[str] = mapped_column(TENANT_ID, primary_key=True)
    seq: Mapped[int]
    hash: Mapped[str] = mapped_column(SHA256)
    sealed_at: Mapped[datetime]
    expired_seq: Mapped[int]
    expired_hash: Mapped[str] = mapped_column(SHA256)
