"""Tables by which the processes of the service tell each other something."""

from datetime import datetime

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from jobstore.dialects import clock
from jobstore.tables.base import DEFAULT_TENANT, SHA256, TENANT_ID, Base, Document, Owned


class CatalogueRow(Base):
    """One thing that may be asked for, as the workers published it from `atmc_core`."""

    __tablename__ = "catalogue"

    kind: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    document: Mapped[Document]
    published_at: Mapped[datetime] = mapped_column(insert_default=clock())


class WorkerRow(Base):
    """A worker that is there: how many GPUs it has, and when it was last heard of."""

    __tablename__ = "workers"

    owner: Mapped[str] = mapped_column(String(255), primary_key=True)
    gpus: Mapped[int]
    seen_at: Mapped[datetime]


class IdempotencyKey(Owned, Base):
    """A request with an `Idempotency-Key`, and once there is one its answer.

    `scope` is the call ("POST /jobs"), `fingerprint` a digest of the request's content; `holder`
    is the one of several alike that acts.
    """

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index(None, "created_at"),)

    tenant_id: Mapped[str] = mapped_column(
        TENANT_ID, primary_key=True, server_default=DEFAULT_TENANT
    )
    scope: Mapped[str] = mapped_column(String(255), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(insert_default=clock())
    fingerprint: Mapped[str] = mapped_column(SHA256)
    holder: Mapped[str | None] = mapped_column(String(32))
    status: Mapped[int | None]
    headers: Mapped[Document | None]
    body: Mapped[Document | None]


class Metric(Base):
    """A sum over all that has happened, or a gauge as it was `told_at`: see `jobstore.metrics`.

    `labels` is a JSON object, sorted.
    """

    __tablename__ = "metrics"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    labels: Mapped[str] = mapped_column(String(255), primary_key=True)
    value: Mapped[float]
    told_at: Mapped[datetime | None]
