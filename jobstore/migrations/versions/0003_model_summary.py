"""what a model's header says."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """The header of a model that is there already is in the object store, out of reach: empty."""
    # Not in a batch: making the table anew, as SQLite's would, breaks the jobs' foreign keys.
    column = sa.Column("summary", sa.JSON(none_as_null=True), server_default="{}", nullable=False)
    op.add_column("models", column)


def downgrade() -> None:
    """Undo it."""
    op.drop_column("models", "summary")
