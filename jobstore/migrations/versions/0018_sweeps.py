"""sweeps, their trials and events; jobs, webhooks and deliveries say which sweep they are of."""

import sqlalchemy as sa
from alembic import op

from jobstore.dialects import UtcDateTime

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_OF_A_SWEEP = ("jobs", "webhooks", "webhook_deliveries")
_SWEEP_STATES = ("running", "succeeded", "failed", "cancelled")
_TRIAL_STATES = ("planned", "queued", "validating", *_SWEEP_STATES, "skipped")


def upgrade() -> None:
    """Make it so. No large table is read or given an index, so nobody waits."""
    for table in _OF_A_SWEEP:
        op.add_column(table, sa.Column("sweep_id", sa.String(40), nullable=True))
    _create_sweeps()
    name = "sweep_trials"
    op.create_table(
        name,
        _tenant_column(),
        sa.Column("sweep_id", sa.String(40), nullable=False),
        sa.Column("index", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("spec", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("point", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("denser", sa.BigInteger(), nullable=True),
        sa.Column("confirms", sa.BigInteger(), nullable=True),
        sa.Column("shares", sa.String(64), nullable=False),
        sa.Column("job_id", sa.String(40), nullable=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("sweep_id", "index", name=op.f(f"pk_{name}")),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweeps.id"], name=op.f(f"fk_{name}_sweep_id")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f(f"fk_{name}_job_id")),
        _one_of(name, _TRIAL_STATES),
    )
    op.create_index(op.f(f"ix_{name}_job_id"), name, ["job_id"])
    name = "sweep_events"
    op.create_table(
        name,
        _tenant_column(),
        sa.Column("sweep_id", sa.String(40), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("time", UtcDateTime(), nullable=False),
        sa.Column("type", sa.String(32), nullable=False),
        sa.Column("data", sa.JSON(none_as_null=True), nullable=False),
        sa.PrimaryKeyConstraint("sweep_id", "seq", name=op.f(f"pk_{name}")),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweeps.id"], name=op.f(f"fk_{name}_sweep_id")),
    )


def _create_sweeps() -> None:
    name = "sweeps"
    op.create_table(
        name,
        _tenant_column(),
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("model_id", sa.String(40), nullable=False),
        sa.Column("dataset_id", sa.String(40), nullable=False),
        sa.Column("asked", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("rank", sa.BigInteger(), nullable=False),
        sa.Column("device", sa.String(8), nullable=True),
        sa.Column("gpus", sa.BigInteger(), nullable=False),
        sa.Column("max_parallel", sa.BigInteger(), nullable=False),
        sa.Column("time_limit_s", sa.Double(), nullable=True),
        sa.Column("trial_time_limit_s", sa.Double(), nullable=True),
        sa.Column("trace", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=True),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        sa.Column("cancel_requested_at", UtcDateTime(), nullable=True),
        sa.Column("last_event_seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{name}")),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f(f"fk_{name}_model_id")),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.id"], name=op.f(f"fk_{name}_dataset_id")
        ),
        _one_of(name, _SWEEP_STATES),
    )
    indexes = ("tenant_id id", "tenant_id finished_at", "model_id", "dataset_id")
    for columns in map(str.split, indexes):
        op.create_index(op.f(f"ix_{name}_{'_'.join(columns)}"), name, columns)
    under_way = sa.text("state = 'running'")
    op.create_index(
        "ix_sweeps_under_way",
        name,
        ["id"],
        postgresql_where=under_way,
        sqlite_where=under_way,
    )


def _one_of(table: str, states: tuple[str, ...]) -> sa.CheckConstraint:
    listed = ", ".join(f"'{state}'" for state in states)
    return sa.CheckConstraint(f"state IN ({listed})", name=op.f(f"ck_{table}_state"))


def _tenant_column() -> sa.Column[str]:
    return sa.Column("tenant_id", sa.String(64), server_default="default", nullable=False)


def downgrade() -> None:
    """Undo it."""
    for table in ("sweep_events", "sweep_trials", "sweeps"):
        op.drop_table(table)
    for table in _OF_A_SWEEP:
        op.drop_column(table, "sweep_id")
