"""the denser job whose compressed network a job starts from."""

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


def downgrade() -> None:
    """Undo it."""
    op.drop_index(_INDEX, "jobs")
    for name, _ in _COLUMNS:
        op.drop_column("jobs", name)
