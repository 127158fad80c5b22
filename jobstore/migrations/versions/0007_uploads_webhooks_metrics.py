"""uploads in several requests, webhooks, figures that outlive a process."""

import sqlalchemy as sa
from alembic import op

from jobstore.dialects import UtcDateTime

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make it so."""
    op.add_column("jobs", sa.Column("stage_started_at", UtcDateTime(), nullable=True))
    # Unknown of a job that is there already: those tell when they were made.
    op.add_column("jobs", sa.Column("queued_at", UtcDateTime(), nullable=True))
    op.create_table(
        "metrics",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("labels", sa.String(255), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("told_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("name", "labels", name=op.f("pk_metrics")),
    )
    op.create_table(
        "uploads",
        _tenant_column(),
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("received", sa.BigInteger(), nullable=False),
        sa.Column("tus_metadata", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=True),
        sa.Column("direct_key", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uploads")),
    )
    op.create_index(op.f("ix_uploads_expires_at"), "uploads", ["expires_at"])
    op.create_table(
        "upload_chunks",
        _tenant_column(),
        sa.Column("upload_id", sa.String(40), nullable=False),
        sa.Column("offset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["upload_id"], ["uploads.id"], name=op.f("fk_upload_chunks_upload_id")
        ),
        sa.PrimaryKeyConstraint("upload_id", "offset", name=op.f("pk_upload_chunks")),
    )
    _create_webhooks()


def _create_webhooks() -> None:
    op.create_table(
        "webhooks",
        _tenant_column(),
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("job_id", sa.String(40), nullable=True),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("events", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("failed_deliveries", sa.BigInteger(), nullable=False),
        sa.Column("disabled_at", UtcDateTime(), nullable=True),
        sa.Column("disabled_reason", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_webhooks_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
    )
    op.create_index(op.f("ix_webhooks_tenant_id_job_id"), "webhooks", ["tenant_id", "job_id"])
    op.create_index(op.f("ix_webhooks_job_id"), "webhooks", ["job_id"])
    name = "webhook_deliveries"
    op.create_table(
        name,
        _tenant_column(),
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("webhook_id", sa.String(40), nullable=False),
        sa.Column("job_id", sa.String(40), nullable=True),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("type", sa.String(32), nullable=False),
        sa.Column("data", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.BigInteger(), nullable=False),
        sa.Column("due_at", UtcDateTime(), nullable=True),
        sa.Column("held_until", UtcDateTime(), nullable=True),
        sa.Column("delivered_at", UtcDateTime(), nullable=True),
        sa.Column("given_up_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhooks.id"], name=op.f(f"fk_{name}_webhook_id")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f(f"fk_{name}_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{name}")),
    )
    op.create_index(op.f(f"ix_{name}_webhook_id_id"), name, ["webhook_id", "id"])
    due = sa.text("due_at IS NOT NULL")
    op.create_index(f"ix_{name}_due", name, ["due_at"], postgresql_where=due, sqlite_where=due)
    op.create_table(
        "webhook_attempts",
        _tenant_column(),
        sa.Column("delivery_id", sa.String(40), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("status", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["delivery_id"], [f"{name}.id"], name=op.f("fk_webhook_attempts_delivery_id")
        ),
        sa.PrimaryKeyConstraint("delivery_id", "number", name=op.f("pk_webhook_attempts")),
    )


def _tenant_column() -> sa.Column[str]:
    return sa.Column("tenant_id", sa.String(64), server_default="default", nullable=False)


def downgrade() -> None:
    """Undo it."""
    for table in ("webhook_attempts", "webhook_deliveries", "webhooks"):
        op.drop_table(table)
    op.drop_table("upload_chunks")
    op.drop_table("uploads")
    op.drop_table("metrics")
    op.drop_column("jobs", "queued_at")
    op.drop_column("jobs", "stage_started_at")
