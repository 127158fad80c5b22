"""figures that outlive a process."""

import sqlalchemy as sa
from alembic import op

from jobstore.dialects import UtcDateTime

revision = "0007"
down_revision = "0005"
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


def _tenant_column() -> sa.Column[str]:
    return sa.Column("tenant_id", sa.String(64), server_default="default", nullable=False)


def downgrade() -> None:
    """Undo it."""
    op.drop_table("upload_chunks")
    op.drop_table("uploads")
    op.drop_table("metrics")
    op.drop_column("jobs", "queued_at")
    op.drop_column("jobs", "stage_started_at")
