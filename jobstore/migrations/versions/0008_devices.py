"""what a job asks for, the workers there are, and how much an attempt has told."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Jobs that are there ask for nothing: any worker may run them, as before."""
    op.add_column("jobs", sa.Column("device", sa.String(8), nullable=True))
    op.add_column("jobs", sa.Column("gpus", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column(
        "jobs", sa.Column("reported", sa.BigInteger(), server_default="0", nullable=False)
    )
    op.create_table(
        "workers",
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("gpus", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("owner", name="pk_workers"),
    )


def downgrade() -> None:
    """Undo it."""
    op.drop_table("workers")
    op.drop_column("jobs", "reported")
    op.drop_column("jobs", "gpus")
    op.drop_column("jobs", "device")
