"""the database refuses what the state machine has no arrow for; retries; two checkpoints."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# {differs}: the databases' names for "is another value, or one of them is NULL".
_ILLEGAL_UPDATE = """
    NOT (
        OLD.state = NEW.state
        OR (OLD.state = 'queued' AND NEW.state IN ('validating', 'cancelled'))
        OR (OLD.state = 'validating'
            AND NEW.state IN ('running', 'queued', 'succeeded', 'failed', 'cancelled'))
        OR (OLD.state = 'running'
            AND NEW.state IN ('queued', 'succeeded', 'failed', 'cancelled'))
        OR (OLD.state IN ('failed', 'cancelled') AND NEW.state = 'queued'
            AND NEW.retries = OLD.retries + 1)
    )
    OR (OLD.state = 'queued' AND NEW.state = 'validating' AND NEW.attempt <> OLD.attempt + 1)
    OR (NOT (OLD.state = 'queued' AND NEW.state = 'validating') AND NEW.attempt <> OLD.attempt)
    OR (NEW.state IN ('validating', 'running')
        AND (NEW.owner IS NULL OR NEW.lease_expires_at IS NULL))
    OR (OLD.state IN ('validating', 'running') AND NEW.state IN ('validating', 'running')
        AND NEW.owner {differs} OLD.owner)
    OR (OLD.state IN ('succeeded', 'failed', 'cancelled') AND NEW.state = OLD.state
        AND OLD.finished_at IS NOT NULL
        AND (NEW.finished_at {differs} OLD.finished_at
            OR NEW.owner {differs} OLD.owner
            OR NEW.error_code {differs} OLD.error_code
            OR NEW.error_message {differs} OLD.error_message
            OR NEW.last_event_seq <> OLD.last_event_seq
            OR NEW.file_bytes {differs} OLD.file_bytes
            OR NEW.robust_accuracy_after {differs} OLD.robust_accuracy_after))
"""
_ILLEGAL_INSERT = "NEW.state <> 'queued' OR NEW.attempt <> 0 OR NEW.owner IS NOT NULL"

_MESSAGE = "the state machine of jobs has no such arrow"


def upgrade() -> None:
    """Jobs that are there keep what they are; workers of the version before may go on writing."""
    op.add_column("jobs", sa.Column("retries", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("jobs", sa.Column("previous_checkpoint_key", sa.Text(), nullable=True))
    kept = sa.text("checkpoint_key IS NOT NULL AND finished_at IS NOT NULL")
    op.create_index(
        "ix_jobs_kept_checkpoints",
        "jobs",
        ["finished_at"],
        postgresql_where=kept,
        sqlite_where=kept,
    )
    if op.get_bind().dialect.name == "postgresql":
        _make_postgresql_triggers()
    else:
        _make_sqlite_triggers()


def _make_postgresql_triggers() -> None:
    op.execute(
        f"""
        CREATE FUNCTION refuse_illegal_transition() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '{_MESSAGE}: % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation';
        END $$
        """
    )
    op.execute(
        f"""
        CREATE FUNCTION refuse_illegal_birth() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '{_MESSAGE}: nothing to %', NEW.state
                USING ERRCODE = 'check_violation';
        END $$
        """
    )
    condition = _ILLEGAL_UPDATE.format(differs="IS DISTINCT FROM")
    op.execute(
        "CREATE TRIGGER jobs_legal_update BEFORE UPDATE ON jobs FOR EACH ROW "
        f"WHEN ({condition}) EXECUTE FUNCTION refuse_illegal_transition()"
    )
    op.execute(
        "CREATE TRIGGER jobs_legal_insert BEFORE INSERT ON jobs FOR EACH ROW "
        f"WHEN ({_ILLEGAL_INSERT}) EXECUTE FUNCTION refuse_illegal_birth()"
    )


def _make_sqlite_triggers() -> None:
    conditions = {
        "UPDATE": _ILLEGAL_UPDATE.format(differs="IS NOT"),
        "INSERT": _ILLEGAL_INSERT,
    }
    for action, condition in conditions.items():
        op.execute(
            f"CREATE TRIGGER jobs_legal_{action.lower()} BEFORE {action} ON jobs "
            f"WHEN {condition} BEGIN SELECT RAISE(ABORT, '{_MESSAGE}'); END"
        )


def downgrade() -> None:
    """Undo it."""
    on_table = " ON jobs" if op.get_bind().dialect.name == "postgresql" else ""
    for action in ("update", "insert"):
        op.execute(f"DROP TRIGGER jobs_legal_{action}{on_table}")
    if on_table:
        op.execute("DROP FUNCTION refuse_illegal_transition()")
        op.execute("DROP FUNCTION refuse_illegal_birth()")
    op.drop_index("ix_jobs_kept_checkpoints", "jobs")
    op.drop_column("jobs", "previous_checkpoint_key")
    op.drop_column("jobs", "retries")
