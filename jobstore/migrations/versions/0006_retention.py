"""stored objects have rows that count references; uploads expire."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_WITH_BYTES = ("models", "datasets", "artifacts")
_UPLOADS = ("models", "datasets")


def upgrade() -> None:
    """Every blob that a row names gets a row; the sweep finds those that none names."""
    op.create_table(
        "blobs",
        sa.Column("tenant_id", sa.String(length=64), server_default="default", nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("touched_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "sha256", name="pk_blobs"),
    )
    named = " UNION ".join(f"SELECT tenant_id, sha256, bytes FROM {table}" for table in _WITH_BYTES)
    op.execute(
        "INSERT INTO blobs (tenant_id, sha256, bytes, touched_at) "
        f"SELECT tenant_id, sha256, max(bytes), CURRENT_TIMESTAMP FROM ({named}) AS named "
        "GROUP BY tenant_id, sha256"
    )
    for table in _UPLOADS:
        op.add_column(table, sa.Column("expired_at", sa.DateTime(timezone=True), nullable=True))
        op.create_index(f"ix_jobs_{table[:-1]}_id", "jobs", [f"{table[:-1]}_id"])
    for table in _WITH_BYTES:
        op.create_index(f"ix_{table}_tenant_id_sha256", table, ["tenant_id", "sha256"])
    op.create_index("ix_jobs_tenant_id_finished_at", "jobs", ["tenant_id", "finished_at"])


def downgrade() -> None:
    """Undo it."""
    op.drop_index("ix_jobs_tenant_id_finished_at", "jobs")
    for table in _WITH_BYTES:
        op.drop_index(f"ix_{table}_tenant_id_sha256", table)
    for table in _UPLOADS:
        op.drop_index(f"ix_jobs_{table[:-1]}_id", "jobs")
        op.drop_column(table, "expired_at")
    op.drop_table("blobs")
