"""the denser job whose network a job starts from; what stages made, for other jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_INDEX = "ix_jobs_starts"
_COLUMNS = (("start_from", 40), ("start_sha256", 64))


def upgrade() -> None:
    """Jobs that are there start from their upload."""
    for name, length in _COLUMNS:
        op.add_column("jobs", sa.Column(name, sa.String(length), nullable=True))
    # There is no such row yet, so that it is made at once, whatever else is at work.
    condition = sa.text("start_sha256 IS NOT NULL")
    op.create_index(
        _INDEX,
        "jobs",
        ["tenant_id", "start_sha256", "finished_at"],
        postgresql_where=condition,
        sqlite_where=condition,
    )
    op.create_table(
        "products",
        _tenant(),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=True),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("made_by", sa.String(40), nullable=True),
        sa.Column("claimed_by", sa.String(40), nullable=True),
        sa.Column("claimed_attempt", sa.BigInteger(), nullable=True),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "key", name="pk_products"),
    )
    for column in ("sha256", "used_at"):
        op.create_index(f"ix_products_tenant_id_{column}", "products", ["tenant_id", column])
    op.create_table(
        "product_uses",
        _tenant(),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("job_id", sa.String(40), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_product_uses_job_id"),
        sa.PrimaryKeyConstraint("tenant_id", "key", "job_id", name="pk_product_uses"),
    )
    op.create_index("ix_product_uses_job_id", "product_uses", ["job_id"])


def _tenant() -> sa.Column[str]:
    return sa.Column("tenant_id", sa.String(64), server_default="default", nullable=False)


def downgrade() -> None:
    """Undo it."""
    op.drop_table("product_uses")
    op.drop_table("products")
    op.drop_index(_INDEX, "jobs")
    for name, _ in _COLUMNS:
        op.drop_column("jobs", name)
