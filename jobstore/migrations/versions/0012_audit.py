"""the audit log; keys that hold at some addresses only and are reminded of."""

import sqlalchemy as sa
from alembic import op

from jobstore.dialects import UtcDateTime

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make it so."""
    op.add_column("keys", sa.Column("addresses", sa.Text(), nullable=True))
    op.add_column("keys", sa.Column("reminded_at", UtcDateTime(), nullable=True))
    op.create_table(
        "audit",
        sa.Column("tenant_id", sa.String(64), server_default="default", nullable=False),
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("time", UtcDateTime(), nullable=False),
        sa.Column("actor", sa.String(300), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("object", sa.String(255), nullable=True),
        sa.Column("address", sa.String(64), nullable=True),
        sa.Column("request", sa.String(64), nullable=True),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("detail", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("seq", sa.BigInteger(), nullable=True),
        sa.Column("previous", sa.String(64), nullable=True),
        sa.Column("hash", sa.String(64), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index(op.f("ix_audit_tenant_id_seq"), "audit", ["tenant_id", "seq"], unique=True)
    op.create_index(op.f("ix_audit_tenant_id_id"), "audit", ["tenant_id", "id"])
    unsealed = sa.text("seq IS NULL")
    name, of = "ix_audit_unsealed", ["tenant_id", "id"]
    op.create_index(name, "audit", of, postgresql_where=unsealed, sqlite_where=unsealed)
    op.create_table(
        "audit_chains",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("sealed_at", UtcDateTime(), nullable=False),
        sa.Column("expired_seq", sa.BigInteger(), nullable=False),
        sa.Column("expired_hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_audit_chains")),
    )


def downgrade() -> None:
    """Undo it."""
    op.drop_table("audit_chains")
    op.drop_table("audit")
    op.drop_column("keys", "reminded_at")
    op.drop_column("keys", "addresses")
