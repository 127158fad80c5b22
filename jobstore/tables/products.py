"""What stages of jobs made, so that other jobs of the tenant need not make it again."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, Text
from sqlalchemy.orm import Mapped, mapped_column

from jobstore.dialects import clock
from jobstore.tables.base import DEFAULT_TENANT, ID, SHA256, TENANT_ID, Base, Owned
from jobstore.tables.jobs import Job


class Product(Owned, Base):
    """What a stage made: its bytes are the blob `sha256`; see `jobstore.products`.

    `key` is the digest of all that the result depends on. Until there are bytes, the attempt
    `claimed_attempt` of the job `claimed_by` makes them, if it is still at work. `made_by` is the
    job that has, in `seconds`.
    """

    __tablename__ = "products"
    __table_args__ = (Index(None, "tenant_id", "sha256"), Index(None, "tenant_id", "used_at"))

    tenant_id: Mapped[str] = mapped_column(
        TENANT_ID, primary_key=True, server_default=DEFAULT_TENANT
    )
    key: Mapped[str] = mapped_column(SHA256, primary_key=True)
    stage: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str | None] = mapped_column(SHA256)
    bytes: Mapped[int | None]
    seconds: Mapped[float | None]
    made_by: Mapped[str | None] = mapped_column(ID)
    claimed_by: Mapped[str | None] = mapped_column(ID)
    claimed_attempt: Mapped[int | None]
    used_at: Mapped[datetime] = mapped_column(insert_default=clock())


class ProductUse(Owned, Base):
    """A job that made or took a product: one that no job is left of goes with the last."""

    __tablename__ = "product_uses"
    __table_args__ = (Index(None, "job_id"),)

    tenant_id: Mapped[str] = mapped_column(
        TENANT_ID, primary_key=True, server_default=DEFAULT_TENANT
    )
    key: Mapped[str] = mapped_column(SHA256, primary_key=True)
    job_id: Mapped[str] = mapped_column(ID, ForeignKey(Job.id), primary_key=True)
