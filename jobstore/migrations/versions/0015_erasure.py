"""a tenant may be on its way out."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """The keeper erases those that have a time there."""
    column = sa.Column("erase_requested_at", sa.DateTime(timezone=True), nullable=True)
    op.add_column("tenants", column)


def downgrade() -> None:
    """Undo it."""
    op.drop_column("tenants", "erase_requested_at")
