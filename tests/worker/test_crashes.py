"""A child that dies, a store or a database that is away: what it costs the job."""

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine, create_engine, text

from jobstore import artifacts
from jobstore.objects import blob_key
from jobstore.tenants import change_tenant
from tests.conftest import EMBEDDED
from tests.worker.conftest import SUCCEED, running
from worker.supervisor import runs_folder


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ({"results": ["model.atmc"]}, "left no results/report.json"),
        ({"results": ["report.json", "a b"]}, "'a b'"),
        ({"results": ["report.json", ".hidden"]}, "'.hidden'"),
        ({"results": ["report.json", "a" * 101]}, "not a result"),
        ({"links": ["model.pt"]}, "'model.pt'"),
        ({"results": ["report.json", "attestation.dsse.json"]}, "'attestation.dsse.json'"),
    ],
)
def test_results_that_break_the_protocol_are_a_crash_and_none_is_published(
    bench, run, left: dict[str, list[str]], said: str
) -> None:
    job_id = bench.add_job(SUCCEED | left, max_attempts=1)
    run()
    job = bench.job(job_id)
    assert (job.state, job.error_code) == ("failed", "child_crashed")
    assert said in job.error_message
    with bench.database.read() as session:
        assert artifacts.list_artifacts(session, job_id) == []


@pytest.mark.parametrize(
    ("spec", "how"),
    [
        ({"do": "crash", "signal": "SIGSEGV"}, "was killed by SIGSEGV"),
        ({"do": "exit"}, "ended with exit status 1"),
    ],
)
def test_a_crashing_child_is_tried_again_then_fails_with_its_last_words(
    bench, run, spec: dict[str, str], how: str
) -> None:
    job_id = bench.add_job(spec, max_attempts=2)
    run()
    job = bench.job(job_id)
    assert (job.state, job.failed_attempts, job.error_code) == ("queued", 1, None)
    run()
    job = bench.job(job_id)
    assert (job.state, job.attempt, job.error_code) == ("failed", 2, "child_crashed")
    assert how in job.error_message
    assert job.error_message.splitlines()[-1] in ("out of luck", "that was all")
    assert [event.attempt for event in bench.events(job_id) if event.type == "error"] == [1, 2]


@pytest.mark.parametrize("column", [EMBEDDED])
@pytest.mark.parametrize("code", ["out_of_memory", "cuda_error"])
def test_a_child_that_knows_why_it_crashed_is_believed(bench, run, code: str) -> None:
    job_id = bench.add_job({"do": "tell_why", "code": code}, max_attempts=1)
    run()
    job = bench.job(job_id)
    assert (job.state, job.error_code) == ("failed", code)
    assert "it says" in job.error_message


@pytest.mark.parametrize("column", [EMBEDDED])
def test_a_crash_has_no_code_but_those_that_are_known(bench, run) -> None:
    job_id = bench.add_job({"do": "tell_why", "code": "all_is_well"}, max_attempts=1)
    run()
    assert bench.job(job_id).error_code == "child_crashed"


@pytest.mark.parametrize("column", [EMBEDDED])
def test_a_job_past_its_disk_ends_and_leaves_nothing(bench, run, supervisor) -> None:
    supervisor.settings.max_run_bytes = 20 * 2**20
    job_id = bench.add_job({"do": "sprawl"})
    run()
    job = bench.job(job_id)
    assert (job.state, job.error_code) == ("failed", "out_of_disk")
    assert "20,971,520 bytes" in str(job.error_message)
    assert [path for path in runs_folder(bench.settings).iterdir() if path.is_dir()] == []


def test_a_tenant_s_quota_limits_the_disk_of_its_jobs(bench, supervisor) -> None:
    assert supervisor._disk_limit("default") == bench.settings.max_run_bytes
    for stored, limit in ((2 << 20, 256 << 20), (1 << 30, 1 << 30), (2**50, 64 << 30)):
        with bench.database.write() as session:
            change_tenant(session, "default", {"max_stored_bytes": stored})
        assert supervisor._disk_limit("default") == limit


def test_a_worker_without_room_leaves_jobs_to_others(supervisor, caplog) -> None:
    assert supervisor.has_room()
    supervisor.settings.reserved_bytes = 2**62
    assert not supervisor.has_room()
    assert "the disk is full" in caplog.text


def test_a_disk_that_gets_full_ends_a_job(bench, run, supervisor) -> None:
    supervisor.settings.reserved_bytes = 2**62
    job_id = bench.add_job({"do": "hang"})
    run()
    job = bench.job(job_id)
    assert (job.state, job.error_code) == ("failed", "out_of_disk")


def test_a_job_past_its_memory_ends_alone_and_says_how_much_it_may_have(
    bench, run, supervisor, poll
) -> None:
    supervisor.settings.memory_limit_bytes = 200 * 2**20
    job_id = bench.add_job({"do": "hoard"})
    run()
    job = bench.job(job_id)
    assert (job.state, job.error_code) == ("failed", "out_of_memory")
    assert "209,715,200 bytes" in job.error_message
    # The worker lives and goes on.
    after = bench.add_job(SUCCEED)
    run()
    assert bench.job(after).state == "succeeded"


def test_after_a_crash_the_job_goes_on_at_its_checkpoint(bench, run) -> None:
    job_id = bench.add_job(SUCCEED | {"crash_at": 3})
    run()
    job = bench.job(job_id)
    assert job.state == "queued"
    assert job.checkpoint_key.endswith("/1/000003.pt")
    run()
    assert bench.job(job_id).state == "succeeded"
    resumed = [event for event in bench.events(job_id) if event.type == "resumed"]
    assert [(event.attempt, event.data) for event in resumed] == [
        (2, {"stage": "training", "epoch": 3})
    ]
    epochs = [
        (event.attempt, event.data["epoch"])
        for event in bench.events(job_id)
        if event.type == "progress"
    ]
    assert epochs == [(1, 1), (1, 2), (1, 3), (2, 4), (2, 5)]


def test_what_is_not_an_event_is_a_crash(bench, run) -> None:
    job_id = bench.add_job({"do": "babble"}, max_attempts=1)
    run()
    job = bench.job(job_id)
    assert (job.state, job.error_code) == ("failed", "child_crashed")
    assert "not an event: b'not JSON'" in job.error_message


@pytest.mark.parametrize("column", [EMBEDDED])  # tests/e2e/test_chaos.py kills an S3 server.
def test_a_store_that_is_away_for_a_moment_costs_nothing(bench, run, poll) -> None:
    checkpoints = bench.settings.home / "objects" / "checkpoints"
    job_id = bench.add_job(SUCCEED | {"crash_at": 3})
    run()
    away = checkpoints.rename(checkpoints.with_name("away"))
    checkpoints.write_text("a file where the store needs a folder")
    with running(run):
        poll(lambda: bench.job(job_id).attempt == 2)
        time.sleep(0.5)  # Not a wait for a state: the outage has to last a while.
        assert bench.job(job_id).state == "validating"
        checkpoints.unlink()
        away.rename(checkpoints)
    assert bench.job(job_id).state == "succeeded"
    assert bench.job(job_id).failed_attempts == 1


@contextmanager
def _away(engine: Engine) -> Iterator[None]:
    """The database answers nobody: PostgreSQL lets none in, a SQLite file has another's table."""
    if engine.dialect.name == "sqlite":
        away, back = "ALTER TABLE jobs RENAME TO away", "ALTER TABLE away RENAME TO jobs"
        admin = engine
    else:
        name = engine.url.database
        allowed = f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS"
        end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        away, back = f"{allowed} false; {end}", f"{allowed} true"
        url = engine.url.set(database="postgres")
        admin = create_engine(url, isolation_level="AUTOCOMMIT")
    with admin.begin() as connection:
        for line in away.split("; "):
            connection.execute(text(line))
    yield
    with admin.begin() as connection:
        connection.execute(text(back))


def test_a_database_that_is_away_for_a_moment_costs_nothing(bench, run, poll) -> None:
    job_id = bench.add_job(SUCCEED | {"crash_at": 3})
    with running(run):
        poll(lambda: bench.job(job_id).epoch == 3)
        with _away(bench.database.engine):
            # Not a wait for a state: long enough for a renewal and the crash's report.
            time.sleep(2)
    assert bench.job(job_id).state == "queued"
    run()
    assert bench.job(job_id).state == "succeeded"


def test_a_missing_input_is_our_fault_and_says_so(bench, run) -> None:
    job_id = bench.add_job(SUCCEED, max_attempts=1)
    bench.store.delete(blob_key(hashlib.sha256(b"images").hexdigest()))
    run()
    job = bench.job(job_id)
    assert (job.state, job.error_code) == ("failed", "internal_error")
    assert "FileNotFoundError" in job.error_message
