"""models and data sets are listed, newest first."""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_TABLES = ("models", "datasets")


def upgrade() -> None:
    """Make it so: a row for each upload is little, and read once."""
    for table in _TABLES:
        op.create_index(op.f(f"ix_{table}_tenant_id_id"), table, ["tenant_id", "id"])


def downgrade() -> None:
    """Undo it."""
    for table in _TABLES:
        op.drop_index(op.f(f"ix_{table}_tenant_id_id"), table)
