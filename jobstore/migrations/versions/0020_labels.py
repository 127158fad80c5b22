"""jobs, models and data sets have labels and metadata, files have names; lists by them and time."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

_TABLES = ("jobs", "models", "datasets")
_DOCUMENTS = ("labels", "notes")
_NAMED = "tenant_id, coalesce(name, ''), id"


def upgrade() -> None:
    """On PostgreSQL the service goes on reading and writing while the indexes are built."""
    for table in _TABLES[1:]:
        op.add_column(table, sa.Column("name", sa.Text(), nullable=True))
    for table in _TABLES:
        for name in _DOCUMENTS:
            op.add_column(table, sa.Column(name, sa.JSON(), server_default="{}", nullable=False))
    name = "labels"
    op.create_table(
        name,
        sa.Column("tenant_id", sa.String(64), server_default="default", nullable=False),
        sa.Column("object_id", sa.String(40), nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("value", sa.String(256), nullable=False),
        sa.PrimaryKeyConstraint("object_id", "key", name=op.f(f"pk_{name}")),
    )
    op.create_index(
        op.f(f"ix_{name}_tenant_id_key_value_object_id"),
        name,
        ["tenant_id", "key", "value", "object_id"],
    )
    concurrently = ""
    if op.get_bind().dialect.name == "postgresql":
        concurrently = "CONCURRENTLY "
        # An index that is built beside writers wants to be outside of a transaction. This ends that
        # of what is above, which is why the indexes come last.
        op.execute("COMMIT")
    for table in _TABLES:
        for index, columns in _indexes(table):
            op.execute(f"DROP INDEX {concurrently}IF EXISTS {index}")
            op.execute(f"CREATE INDEX {concurrently}{index} ON {table} ({columns})")
    if concurrently:
        op.execute("BEGIN")


def _indexes(table: str) -> tuple[tuple[str, str], ...]:
    return (
        (f"ix_{table}_tenant_id_created_at", "tenant_id, created_at"),
        (f"ix_{table}_named", _NAMED),
    )


def downgrade() -> None:
    """Undo it."""
    for table in _TABLES:
        for index, _ in _indexes(table):
            op.execute(f"DROP INDEX {index}")
        for name in _DOCUMENTS:
            op.drop_column(table, name)
    for table in _TABLES[1:]:
        op.drop_column(table, "name")
    op.drop_table("labels")
