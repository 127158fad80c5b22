"""the trace that a job belongs to."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Jobs that are there have none."""
    op.add_column("jobs", sa.Column("trace", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    """Undo it."""
    op.drop_column("jobs", "trace")
