"""The teams that share the service, and their keys."""

from datetime import datetime

from sqlalchemy import ForeignKey, Text
from sqlalchemy.orm import Mapped, mapped_column

from jobstore.dialects import clock
from jobstore.tables.base import ID, SHA256, TENANT_ID, Base, Owned


class Tenant(Base):
    """A team that shares the service, under the name that its keys carry.

    What is None is the service's own (`jobstore.settings`). `served_at` is when a worker last took
    one of its jobs; who was served longest ago comes next.
    """

    __tablename__ = "tenants"

    id: Mapped[str] = mapped_column(TENANT_ID, primary_key=True)
    created_at: Mapped[datetime] = mapped_column(insert_default=clock())
    served_at: Mapped[datetime | None]
    max_stored_bytes: Mapped[int | None]
    max_queued_jobs: Mapped[int | None]
    max_running_jobs: Mapped[int | None]
    requests_per_minute: Mapped[int | None]
    keep_uploads_s: Mapped[float | None]
    keep_checkpoints_s: Mapped[float | None]
    keep_artifacts_s: Mapped[float | None]
    keep_events_s: Mapped[float | None]


class Key(Owned, Base):
    """A caller's key, of which only the SHA-256 (hex) is stored.

    `addresses` are the networks that it may be shown from, divided by spaces; None is anywhere.
    """

    __tablename__ = "keys"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(TENANT_ID, ForeignKey(Tenant.id))
    hash: Mapped[str] = mapped_column(SHA256, unique=True)
    scopes: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(insert_default=clock())
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    addresses: Mapped[str | None] = mapped_column(Text)
    reminded_at: Mapped[datetime | None]
