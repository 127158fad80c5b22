"""the figures of a job become one document; the columns that held them stay for the version before.

`RETIRED` is what no table maps any more. An API of the version before still reads these columns,
and its workers still write them, so they go only with a later revision.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_SHARES = tuple(
    f"{kind}_accuracy_{when}"
    for kind in ("clean", "fgsm", "pgd", "robust")
    for when in ("before", "after")
)
_COUNTS = (
    "k",
    "nonzeros",
    "nonzeros_u",
    "nonzeros_v",
    "nonzeros_c",
    "bits",
    "max_distinct_values",
    "dense_bytes",
    "file_bytes",
)
_RATIOS = ("file_ratio", "nominal_ratio", "seconds")

RETIRED = frozenset({*_SHARES, *_COUNTS, *_RATIOS, "accepted"})
"""The columns of `jobs` that no version from this one on reads or writes."""

_MESSAGE = "the figures of a job do not change"


def upgrade() -> None:
    """Move the figures of every job that has succeeded, and of those that an old worker ends."""
    op.add_column("jobs", sa.Column("headline", sa.JSON(none_as_null=True), nullable=True))
    is_postgresql = op.get_bind().dialect.name == "postgresql"
    document = _postgresql_document if is_postgresql else _sqlite_document
    op.execute(f"UPDATE jobs SET headline = {document('')} WHERE state = 'succeeded'")
    (_make_postgresql_triggers if is_postgresql else _make_sqlite_triggers)()


def _postgresql_document(prefix: str) -> str:
    figures = ", ".join(f"'{name}', {prefix}{name}" for name in sorted(RETIRED))
    return f"json_build_object({figures})"


def _sqlite_document(prefix: str) -> str:
    # By itself SQLite writes 15 digits of a number, which is not always the same number again.
    number = "iif({0} IS NULL, NULL, json(printf('%!.17g', {0})))"
    forms = dict.fromkeys((*_SHARES, *_RATIOS), number) | {
        # There is no boolean in SQLite: a 1 would not be the JSON true.
        "accepted": "CASE {0} WHEN 1 THEN json('true') WHEN 0 THEN json('false') END"
    }
    figures = ", ".join(
        f"'{name}', " + forms.get(name, "{0}").format(prefix + name) for name in sorted(RETIRED)
    )
    return f"json_object({figures})"


_ENDED_BY_AN_OLD_WORKER = (
    "NEW.state = 'succeeded' AND OLD.state <> 'succeeded' AND NEW.headline IS NULL"
)


def _make_postgresql_triggers() -> None:
    op.execute(
        f"""
        CREATE FUNCTION gather_headline() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.headline := {_postgresql_document("NEW.")};
            RETURN NEW;
        END $$
        """
    )
    op.execute(
        f"""
        CREATE FUNCTION refuse_other_headline() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '{_MESSAGE}' USING ERRCODE = 'check_violation';
        END $$
        """
    )
    op.execute(
        "CREATE TRIGGER jobs_gather_headline BEFORE UPDATE ON jobs FOR EACH ROW "
        f"WHEN ({_ENDED_BY_AN_OLD_WORKER}) EXECUTE FUNCTION gather_headline()"
    )
    op.execute(
        "CREATE TRIGGER jobs_final_headline BEFORE UPDATE ON jobs FOR EACH ROW "
        "WHEN (OLD.headline IS NOT NULL "
        "AND NEW.headline::text IS DISTINCT FROM OLD.headline::text) "
        "EXECUTE FUNCTION refuse_other_headline()"
    )


def _make_sqlite_triggers() -> None:
    op.execute(
        f"CREATE TRIGGER jobs_gather_headline AFTER UPDATE ON jobs WHEN {_ENDED_BY_AN_OLD_WORKER} "
        f"BEGIN UPDATE jobs SET headline = {_sqlite_document('NEW.')} WHERE id = NEW.id; END"
    )
    op.execute(
        "CREATE TRIGGER jobs_final_headline BEFORE UPDATE ON jobs "
        "WHEN OLD.headline IS NOT NULL AND NEW.headline IS NOT OLD.headline "
        f"BEGIN SELECT RAISE(ABORT, '{_MESSAGE}'); END"
    )


def downgrade() -> None:
    """Undo it; figures of jobs that ended meanwhile are in their reports alone."""
    on_table = " ON jobs" if op.get_bind().dialect.name == "postgresql" else ""
    for name in ("jobs_gather_headline", "jobs_final_headline"):
        op.execute(f"DROP TRIGGER {name}{on_table}")
    if on_table:
        op.execute("DROP FUNCTION gather_headline()")
        op.execute("DROP FUNCTION refuse_other_headline()")
    op.drop_column("jobs", "headline")
