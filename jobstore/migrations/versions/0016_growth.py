"""indexes for what grew with the rows that have ended; how far retention has come."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

# Name, table, columns, condition.
_NEW = (
    ("ix_jobs_model_id_finished_at", "jobs", "model_id, finished_at", None),
    ("ix_jobs_dataset_id_finished_at", "jobs", "dataset_id, finished_at", None),
    (
        "ix_jobs_at_work",
        "jobs",
        "tenant_id, lease_expires_at",
        "state IN ('running', 'validating')",
    ),
    ("ix_jobs_checkpoints", "jobs", "finished_at", "checkpoint_key IS NOT NULL"),
    ("ix_webhook_deliveries_job_id", "webhook_deliveries", "job_id", None),
    (
        "ix_webhook_deliveries_done",
        "webhook_deliveries",
        "tenant_id, created_at",
        "due_at IS NULL",
    ),
    ("ix_idempotency_keys_created_at", "idempotency_keys", "created_at", None),
)
_OLD = (
    ("ix_jobs_model_id", "jobs", "model_id", None),
    ("ix_jobs_dataset_id", "jobs", "dataset_id", None),
    ("ix_jobs_lease_expires_at", "jobs", "lease_expires_at", None),
    (
        "ix_jobs_kept_checkpoints",
        "jobs",
        "finished_at",
        "checkpoint_key IS NOT NULL AND finished_at IS NOT NULL",
    ),
)
_Indexes = tuple[tuple[str, str, str, str | None], ...]
_STORED = "atmc_stored_bytes_at_most"
_MARKS = ("artifacts_expired_to", "events_expired_to")
# By default a table is cleaned once a fifth of its rows are dead: of millions that is too late for
# the few that wait, and for the statistics.
_TENDED = ("jobs", "events", "idempotency_keys", "webhook_deliveries")
_SETTINGS = ("autovacuum_vacuum_scale_factor", "autovacuum_analyze_scale_factor")


def upgrade() -> None:
    """On PostgreSQL the service goes on reading and writing while the indexes are built."""
    _replace(_OLD, _NEW)
    for name in _MARKS:
        op.add_column("tenants", sa.Column(name, sa.DateTime(timezone=True), nullable=True))
    op.execute(
        f"INSERT INTO metrics (name, labels, value) SELECT '{_STORED}', '{{\"tenant\": \"' || "
        "tenant_id || '\"}', sum(bytes) FROM blobs GROUP BY tenant_id"
    )
    if op.get_bind().dialect.name == "postgresql":
        for table in _TENDED:
            factors = ", ".join(f"{name} = 0.02" for name in _SETTINGS)
            op.execute(f"ALTER TABLE {table} SET ({factors})")


def _replace(old: _Indexes, new: _Indexes) -> None:
    concurrently = ""
    if op.get_bind().dialect.name == "postgresql":
        concurrently = "CONCURRENTLY "
        # An index that is built beside writers wants to be outside of a transaction. This ends that
        # of the revisions before; should it be cut short, all of this one is done again.
        op.execute("COMMIT")
    for name, table, columns, condition in new:
        # What is left of a build that was cut short is no index.
        op.execute(f"DROP INDEX {concurrently}IF EXISTS {name}")
        where = f" WHERE {condition}" if condition else ""
        op.execute(f"CREATE INDEX {concurrently}{name} ON {table} ({columns}){where}")
    for name, *_ in old:
        op.execute(f"DROP INDEX {concurrently}IF EXISTS {name}")
    if concurrently:
        op.execute("BEGIN")


def downgrade() -> None:
    """Undo it."""
    _replace(_NEW, _OLD)
    if op.get_bind().dialect.name == "postgresql":
        for table in _TENDED:
            op.execute(f"ALTER TABLE {table} RESET ({', '.join(_SETTINGS)})")
    for name in _MARKS:
        op.drop_column("tenants", name)
    op.execute(f"DELETE FROM metrics WHERE name = '{_STORED}'")
