import logging
import subprocess
import sys
import textwrap
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta, timezone
from importlib import import_module
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, create_engine, insert, inspect, select, text
from sqlalchemy.exc import IntegrityError, StatementError

from jobstore import jobs, uploads
from jobstore.blobs import stored_bytes
from jobstore.database import Database, make_engine, migrate
from jobstore.dialects import now
from jobstore.logs import FORMATTERS, LogFormat
from jobstore.settings import Settings
from jobstore.tables import (
    DEFAULT_TENANT,
    Artifact,
    Base,
    Blob,
    Dataset,
    IdempotencyKey,
    Job,
    Model,
    Tenant,
)

RETIRED = import_module("jobstore.migrations.versions.0009_headline").RETIRED
MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def _model(**changes: object) -> Model:
    columns = {
        "id": "mdl_1",
        "filename": "a",
        "format": "torch",
        "architecture": "lenet",
        "sha256": "a" * 64,
        "bytes": 1,
    }
    return Model(**(columns | changes))


def _uploads() -> dict[str, dict[str, object]]:
    upload = {"filename": "a", "sha256": "a" * 64, "bytes": 1, "created_at": MOMENT}
    return {
        "models": {"id": "mdl_1", "format": "torch", "architecture": "lenet", **upload},
        "datasets": {"id": "dst_1", "summary": {"arrays": {}}, **upload},
    }


def _queued_job(job_id: str) -> dict[str, object]:
    """A row as every version may write it."""
    return {
        "id": job_id,
        "spec": {"method": "atmc"},
        "model_id": "mdl_1",
        "dataset_id": "dst_1",
        "state": "queued",
        "progress": 0.0,
        "attempt": 0,
        "failed_attempts": 0,
        "max_attempts": 3,
        "time_limit_s": 60.0,
        "run_seconds": 5.0,
        "last_event_seq": 0,
        "created_at": MOMENT,
    }


def test_the_migrations_make_exactly_the_mapped_tables(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = compare_metadata(context, Base.metadata)
    # What the version before still reads stays for now; nothing else may differ.
    kept = {(kind, table, column.name) for kind, _, table, column in differences}
    assert kept == {("remove_column", "jobs", name) for name in RETIRED}


FIGURES: dict[str, float | bool | None] = {
    "clean_accuracy_after": 0.1 + 0.2,
    "seconds": 3.0,
    "k": 2**53 + 1,
    "accepted": True,
}


def test_the_figures_of_the_version_before_become_one_document(
    empty_settings: Settings,
) -> None:
    database = Database(make_engine(empty_settings))
    migrate(database.engine, "0008")
    before = MetaData()
    before.reflect(database.engine)
    table = before.tables["jobs"]
    held = {"state": "validating", "attempt": 1, "owner": "w", "lease_expires_at": MOMENT}
    ended = {"state": "succeeded", "finished_at": MOMENT, **FIGURES}
    with database.engine.begin() as connection:
        for name, row in _uploads().items():
            connection.execute(before.tables[name].insert().values(row))
        for job_id in ("job_1", "job_2"):
            connection.execute(table.insert().values(_queued_job(job_id)))
        connection.execute(table.update().values(held))
        connection.execute(table.update().where(table.c.id == "job_1").values(ended))
    migrate(database.engine)
    # A worker of the version before, which knows only the columns, ends the other meanwhile.
    with database.engine.begin() as connection:
        connection.execute(table.update().where(table.c.id == "job_2").values(ended))
    document = dict.fromkeys(RETIRED) | FIGURES
    with database.read() as session:
        for job_id in ("job_1", "job_2"):
            assert jobs.get_job(session, job_id).headline == document
    with (
        pytest.raises(IntegrityError, match="do not change"),
        database.engine.begin() as connection,
    ):
        connection.execute(text("UPDATE jobs SET headline = '{\"k\": 1}' WHERE id = 'job_1'"))
    database.engine.dispose()


def test_secrets_leave_the_answers_that_a_version_before_has_kept(
    empty_settings: Settings,
) -> None:
    database = Database(make_engine(empty_settings))
    migrate(database.engine, "0010")
    shown = {"id": "whk_1", "secret": "whsec_hush"}
    bodies: dict[str, Any] = {
        "POST /webhooks": shown,
        "POST /jobs": {"id": "job_1", "webhook": shown},
        "POST /models": {"id": "mdl_1"},
    }
    with database.engine.begin() as connection:
        for scope, body in bodies.items():
            row = {"tenant_id": "default", "scope": scope, "key": "k", "fingerprint": "f" * 64}
            more = {"holder": "h", "status": 201, "headers": {}, "body": body}
            connection.execute(insert(IdempotencyKey).values(row | more))
    migrate(database.engine)
    with database.read() as session:
        kept = {row.scope: row.body for row in session.scalars(select(IdempotencyKey))}
    assert kept == {
        "POST /webhooks": {"id": "whk_1", "secret": None},
        "POST /jobs": {"id": "job_1", "webhook": {"id": "whk_1", "secret": None}},
        "POST /models": {"id": "mdl_1"},
    }
    database.engine.dispose()


def test_an_index_whose_building_was_cut_short_is_built_anew(empty_settings: Settings) -> None:
    engine = make_engine(empty_settings)
    migrate(engine, "0011")
    with engine.begin() as connection:
        connection.execute(text("CREATE INDEX ix_jobs_at_work ON jobs (id)"))
    migrate(engine)
    # A connection of before would tell of the indexes that it knew.
    engine.dispose()
    found = {index["name"]: index["column_names"] for index in inspect(engine).get_indexes("jobs")}
    assert found["ix_jobs_at_work"] == ["tenant_id", "lease_expires_at"]
    assert "ix_jobs_lease_expires_at" not in found
    engine.dispose()


def test_processes_that_migrate_at_once_do_not_disturb_each_other(empty_settings: Settings) -> None:
    script = f"""
        from jobstore.database import make_engine, migrate
        from jobstore.settings import Settings
        migrate(make_engine(Settings(home={str(empty_settings.home)!r},
                                     database_url={empty_settings.database_url!r})))
    """
    newest = ScriptDirectory("jobstore/migrations").get_current_head()
    python = [sys.executable, "-c", textwrap.dedent(script)]
    processes = [subprocess.Popen(python, stderr=subprocess.PIPE) for _ in range(3)]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()
    with make_engine(empty_settings).connect() as connection:
        assert connection.scalars(text("SELECT version_num FROM alembic_version")).all() == [newest]


def test_rows_of_the_first_revision_live_on_in_the_newest(empty_settings: Settings) -> None:
    database = Database(make_engine(empty_settings))
    migrate(database.engine, "0001")
    first = MetaData()
    first.reflect(database.engine)
    ended = dict.fromkeys(("attempt", "last_event_seq"), 1) | {"state": "succeeded", "k": 7}
    rows = _uploads() | {"jobs": _queued_job("job_1") | ended}
    with database.engine.begin() as connection:
        for name, row in rows.items():
            connection.execute(first.tables[name].insert().values(row))
    migrate(database.engine)
    with database.read() as session:
        kept = jobs.get_job(session, "job_1")
        assert (kept.created_at, kept.spec) == (MOMENT, {"method": "atmc"})
        assert kept.headline is not None
        assert {name for name, figure in kept.headline.items() if figure is not None} == {"k"}
        model = uploads.get_model(session, kept.model_id)
        assert (model.architecture, model.summary) == ("lenet", {})
        # All of it is the default tenant's now, and its bytes are counted once.
        assert {kept.tenant_id, model.tenant_id} == {DEFAULT_TENANT}
        assert session.get(Blob, (DEFAULT_TENANT, "a" * 64)).bytes == 1
        assert stored_bytes(session, DEFAULT_TENANT) == 1
    database.engine.dispose()


def test_the_revisions_can_be_undone_one_by_one(database: Database, add_job) -> None:
    job = add_job()
    with database.engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", "jobstore:migrations")
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
    migrate(database.engine)
    with database.read() as session:
        assert jobs.get_job(session, job.id).spec == job.spec


def test_migrating_again_changes_nothing(database: Database) -> None:
    with database.write() as session:
        session.add(_model())
    migrate(database.engine)
    with database.read() as session:
        assert session.get(Model, "mdl_1") is not None


def test_a_connection_that_the_server_has_ended_is_replaced_unnoticed(
    database: Database, dialect: str
) -> None:
    if dialect == "sqlite":
        pytest.skip("a file ends nobody")
    admin = create_engine(database.engine.url, isolation_level="AUTOCOMMIT")
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid != pg_backend_pid()"
    for enter in (database.read, database.write):
        with ExitStack() as open_at_once:
            for _ in range(3):
                open_at_once.enter_context(enter()).execute(text("SELECT 1"))
        with admin.connect() as connection:
            ended = connection.execute(text(f"SELECT pg_terminate_backend(pid, 5000) {others}"))
            assert ended.all() == [(True,)] * 3
        with ExitStack() as open_at_once:
            for _ in range(3):
                open_at_once.enter_context(enter()).execute(text("SELECT 1"))
    admin.dispose()


def test_only_what_writes_is_a_transaction(database: Database, dialect: str) -> None:
    if dialect == "sqlite":
        pytest.skip("there a read is one, too: it costs nothing")
    # A transaction's time is that of its beginning.
    same = text("SELECT now() = statement_timestamp()")
    with database.read() as session:
        assert session.execute(same).scalar_one()
    with database.write() as session:
        session.execute(text("SELECT pg_sleep(0.01)"))
        assert not session.execute(same).scalar_one()
    with database.write() as session:
        session.add(_model())
        session.flush()
        session.rollback()
    with database.read() as session:
        assert session.get(Model, "mdl_1") is None


def test_times_come_back_aware_and_in_utc(database: Database) -> None:
    with database.write() as session:
        moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone(timedelta(hours=5)))
        session.add(_model(created_at=moment))
    with database.read() as session:
        read = session.get(Model, "mdl_1").created_at
    assert read == moment
    assert read.tzinfo is UTC


def test_a_naive_time_is_refused(database: Database) -> None:
    with pytest.raises(StatementError, match="a time needs its zone"), database.write() as session:
        session.add(_model(created_at=datetime(2026, 1, 2)))


def test_the_clock_is_the_database_s_and_takes_an_offset(database: Database) -> None:
    with database.read() as session:
        moment, later = now(session), now(session, 90.5)
    assert moment.tzinfo is UTC
    assert abs(moment - datetime.now(UTC)) < timedelta(seconds=5)
    assert timedelta(seconds=90.4) < later - moment < timedelta(seconds=92)


def test_foreign_keys_hold(database: Database) -> None:
    with pytest.raises(IntegrityError), database.write() as session:
        session.add(Artifact(job_id="job_0", name="x", media_type="x", sha256="0" * 64, bytes=0))


def test_a_state_outside_the_machine_is_refused(database: Database, add_job) -> None:
    job = add_job()
    with pytest.raises(IntegrityError), database.engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET state = 'asleep' WHERE id = :id"), {"id": job.id})


def test_an_exception_rolls_the_block_back(database: Database) -> None:
    def write_and_fail() -> None:
        with database.write() as session:
            session.add(_model())
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()
    with database.read() as session:
        assert session.get(Model, "mdl_1") is None


def test_rows_stay_readable_after_the_transaction(database: Database, add_job) -> None:
    job = add_job()
    with database.read() as session:
        read = session.get(Job, job.id)
    for column in Job.__table__.columns:
        assert getattr(read, column.name) == getattr(job, column.name)


def test_a_reader_does_not_wait_for_a_writer(database: Database, add_job) -> None:
    job = add_job()
    with database.write() as writer:
        writer.get(Job, job.id, with_for_update=True).progress = 0.5
        writer.flush()
        with database.read() as reader:
            assert reader.get(Job, job.id).progress == 0.0


def test_an_unknown_database_is_refused_by_name(tmp_path) -> None:
    settings = Settings(home=tmp_path, database_url="mysql+pymysql://somewhere/atmc")
    with pytest.raises(ValueError, match="'mysql' is not one of postgresql, sqlite"):
        make_engine(settings)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_statement_that_fails_is_logged_without_what_it_was_given(
    database: Database, caplog: pytest.LogCaptureFixture, log_format: LogFormat
) -> None:
    secret = "of-somebody"
    upload = {"id": secret, "filename": secret, "summary": {}, "sha256": "a" * 64, "bytes": 2**63}
    for kind, statement in (
        (IntegrityError, insert(Tenant).values(id=secret)),
        ((StatementError, OverflowError), insert(Dataset).values(upload)),
    ):
        for again in (False, True):
            try:
                with database.write() as session:
                    session.execute(statement)
                assert not again
            except kind:
                logging.getLogger("x").exception("failed")
    assert len(caplog.records) == 3
    written = "".join(map(FORMATTERS[log_format].format, caplog.records))
    assert "INSERT INTO" in written
    assert secret not in written
