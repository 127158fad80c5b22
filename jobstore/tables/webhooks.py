"""Webhooks, their deliveries, and the tries of each delivery."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from jobstore.dialects import clock
from jobstore.tables.base import ID, Base, Document, Owned, only_where
from jobstore.tables.jobs import Job


class Webhook(Owned, Base):
    """A URL that is told of `events` (divided by spaces): all the tenant's, one job's or sweep's.

    The secret signs what is sent, so it is no hash, but sealed (`jobstore.vault`).
    `failed_deliveries` counts those given up in a row.
    """

    __tablename__ = "webhooks"
    __table_args__ = (Index(None, "tenant_id", "job_id"), Index(None, "job_id"))

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    created_at: Mapped[datetime] = mapped_column(insert_default=clock())
    job_id: Mapped[str | None] = mapped_column(ID, ForeignKey(Job.id))
    sweep_id: Mapped[str | None] = mapped_column(ID)
    url: Mapped[str] = mapped_column(Text)
    events: Mapped[str] = mapped_column(Text)
    secret: Mapped[str] = mapped_column(Text)
    failed_deliveries: Mapped[int]
    disabled_at: Mapped[datetime | None]
    disabled_reason: Mapped[str | None] = mapped_column(Text)


class WebhookDelivery(Owned, Base):
    """A message to a webhook; `due_at` is None once it was delivered or given up.

    `attempts` numbers the tries and is the fencing token; `failures` counts the tries since the
    delivery was last asked for. `seq` is the event's number in the job or sweep.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index(None, "webhook_id", "id"),
        Index(None, "job_id"),
        Index("ix_webhook_deliveries_due", "due_at", **only_where(text("due_at IS NOT NULL"))),
        Index(
            "ix_webhook_deliveries_done",
            "tenant_id",
            "created_at",
            **only_where(text("due_at IS NULL")),
        ),
    )

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    created_at: Mapped[datetime] = mapped_column(insert_default=clock())
    webhook_id: Mapped[str] = mapped_column(ID, ForeignKey(Webhook.id))
    job_id: Mapped[str | None] = mapped_column(ID, ForeignKey(Job.id))
    sweep_id: Mapped[str | None] = mapped_column(ID)
    seq: Mapped[int]
    type: Mapped[str] = mapped_column(String(32))
    data: Mapped[Document]
    attempts: Mapped[int]
    failures: Mapped[int]
    due_at: Mapped[datetime | None] = mapped_column(insert_default=clock())
    held_until: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]
    given_up_at: Mapped[datetime | None]


class WebhookAttempt(Owned, Base):
    """One try of a delivery: an HTTP status, or the error that kept one from coming."""

    __tablename__ = "webhook_attempts"

    delivery_id: Mapped[str] = mapped_column(ID, ForeignKey(WebhookDelivery.id), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(insert_default=clock())
    status: Mapped[int | None]
    error: Mapped[str | None] = mapped_column(Text)
    seconds: Mapped[float]
