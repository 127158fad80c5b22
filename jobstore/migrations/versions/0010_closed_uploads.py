"""direct uploads that are used or given up, but whose URL still holds."""

import sqlalchemy as sa
from alembic import op

from jobstore.dialects import UtcDateTime

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Uploads that are there are open."""
    op.add_column("uploads", sa.Column("closed_at", UtcDateTime(), nullable=True))


def downgrade() -> None:
    """Undo it."""
    op.drop_column("uploads", "closed_at")
