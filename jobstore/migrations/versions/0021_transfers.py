"""files are fetched from elsewhere, results put there; jobs wait for what they are made of."""

import sqlalchemy as sa
from alembic import op

from jobstore.dialects import UtcDateTime

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_FILES = ("models", "datasets")


def upgrade() -> None:
    """Make it so: no table is read, so nobody waits."""
    for table in _FILES:
        state = sa.Column("state", sa.String(16), server_default="ready", nullable=False)
        op.add_column(table, state)
        op.add_column(table, sa.Column("source", sa.JSON(none_as_null=True), nullable=True))
    op.add_column(
        "jobs",
        sa.Column("awaits_inputs", sa.Boolean(), server_default=sa.false(), nullable=False),
    )
    op.add_column("jobs", sa.Column("results", sa.JSON(none_as_null=True), nullable=True))
    name = "transfers"
    op.create_table(
        name,
        sa.Column("tenant_id", sa.String(64), server_default="default", nullable=False),
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("asked", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("due_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{name}")),
    )
    op.create_index(op.f(f"ix_{name}_due_at"), name, ["due_at"])
    op.create_index(op.f(f"ix_{name}_tenant_id"), name, ["tenant_id"])


def downgrade() -> None:
    """Undo it."""
    op.drop_table("transfers")
    for column in ("results", "awaits_inputs"):
        op.drop_column("jobs", column)
    for table in _FILES:
        for column in ("source", "state"):
            op.drop_column(table, column)
