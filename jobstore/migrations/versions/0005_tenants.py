"""tenants and keys; every row belongs to a tenant; jobs have a priority."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_OWNED = ("models", "datasets", "jobs", "events", "artifacts")


def upgrade() -> None:
    """What is there becomes the default tenant's, as does what an older version still writes."""
    op.create_table(
        "tenants",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("served_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("max_stored_bytes", sa.BigInteger(), nullable=True),
        sa.Column("max_queued_jobs", sa.BigInteger(), nullable=True),
        sa.Column("max_running_jobs", sa.BigInteger(), nullable=True),
        sa.Column("requests_per_minute", sa.BigInteger(), nullable=True),
        sa.Column("keep_uploads_s", sa.Double(), nullable=True),
        sa.Column("keep_checkpoints_s", sa.Double(), nullable=True),
        sa.Column("keep_artifacts_s", sa.Double(), nullable=True),
        sa.Column("keep_events_s", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_tenants"),
    )
    op.execute("INSERT INTO tenants (id, created_at) VALUES ('default', CURRENT_TIMESTAMP)")
    op.create_table(
        "keys",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_keys_tenant_id"),
        sa.PrimaryKeyConstraint("id", name="pk_keys"),
        sa.UniqueConstraint("hash", name="uq_keys_hash"),
    )
    for table in _OWNED:
        op.add_column(table, _tenant_column())
    _key_answers_by("tenant_id", "scope", "key")
    op.add_column("jobs", sa.Column("rank", sa.BigInteger(), server_default="0", nullable=False))
    op.drop_index("ix_jobs_state_id", "jobs")
    op.create_index("ix_jobs_tenant_id_id", "jobs", ["tenant_id", "id"])
    op.create_index("ix_jobs_tenant_id_state_id", "jobs", ["tenant_id", "state", "id"])
    waiting = sa.text("state = 'queued'")
    op.create_index(
        "ix_jobs_waiting",
        "jobs",
        ["tenant_id", "rank", "id"],
        postgresql_where=waiting,
        sqlite_where=waiting,
    )


def _tenant_column() -> sa.Column[str]:
    return sa.Column("tenant_id", sa.String(length=64), server_default="default", nullable=False)


def _key_answers_by(*columns: str) -> None:
    # SQLite changes a primary key, or what may be NULL, only by making the table anew.
    tenants = "tenant_id" in columns
    with op.batch_alter_table("idempotency_keys") as batch:
        if tenants:
            batch.add_column(_tenant_column())
            batch.add_column(sa.Column("holder", sa.String(length=32), nullable=True))
        batch.alter_column("status", existing_type=sa.BigInteger(), nullable=tenants)
        for document in ("headers", "body"):
            batch.alter_column(document, existing_type=sa.JSON(), nullable=tenants)
        batch.drop_constraint("pk_idempotency_keys", type_="primary")
        batch.create_primary_key("pk_idempotency_keys", list(columns))


def downgrade() -> None:
    """Undo it; rows of other tenants would become everybody's, so there may be none."""
    others = "SELECT count(*) FROM tenants WHERE id <> 'default'"
    if op.get_bind().scalar(sa.text(others)):
        raise ValueError("there are tenants, whom the version before cannot keep apart")
    for name in ("waiting", "tenant_id_state_id", "tenant_id_id"):
        op.drop_index(f"ix_jobs_{name}", "jobs")
    op.create_index("ix_jobs_state_id", "jobs", ["state", "id"])
    op.drop_column("jobs", "rank")
    op.execute("DELETE FROM idempotency_keys WHERE status IS NULL")
    _key_answers_by("scope", "key")
    op.drop_column("idempotency_keys", "holder")
    for table in ("idempotency_keys", *_OWNED):
        op.drop_column(table, "tenant_id")
    op.drop_table("keys")
    op.drop_table("tenants")
