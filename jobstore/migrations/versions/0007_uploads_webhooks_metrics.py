"""figures that outlive a process."""

import sqlalchemy as sa
from alembic import op

from jobstore.dialects import UtcDateTime

revision = "0007"
down_revision = "0004"
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


def downgrade() -> None:
    """Undo it."""
    op.drop_table("metrics")
    op.drop_column("jobs", "queued_at")
    op.drop_column("jobs", "stage_started_at")
