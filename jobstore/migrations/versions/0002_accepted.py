"""whether a job's result meets the thresholds of its spec."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Jobs that have ended named no thresholds, so NULL is true for them."""
    op.add_column("jobs", sa.Column("accepted", sa.Boolean(), nullable=True))


def downgrade() -> None:
    """Undo it."""
    op.drop_column("jobs", "accepted")
