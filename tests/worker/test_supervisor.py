"""The supervisor's mechanics, with a stand-in for the child that does as its spec says."""

import hashlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text

from jobstore import artifacts, leases
from jobstore.objects import blob_key
from jobstore.tables import HEADLINE_FIELDS
from tests.conftest import EMBEDDED
from worker.folder import remove_abandoned, run_folder
from worker.supervisor import Supervisor, runs_folder

SUCCEED = {"do": "succeed", "headline": dict.fromkeys(HEADLINE_FIELDS, 1)}
STUBBORN = {"do": "hang", "stubborn": True}
STAND_IN = (sys.executable, str(Path(__file__).with_name("stand_in.py")))


@pytest.fixture
def shutdown() -> threading.Event:
    return threading.Event()


@pytest.fixture
def supervisor(bench, shutdown: threading.Event) -> Iterator[Supervisor]:
    supervisor = Supervisor(
        bench.settings,
        bench.database,
        bench.store,
        device="cpu",
        shutdown=shutdown,
        child_command=STAND_IN,
    )
    yield supervisor
    supervisor.children.close()


@pytest.fixture
def run(bench, supervisor: Supervisor) -> Callable[[], None]:
    """Claims the next job and runs one attempt of it."""

    def run_next() -> None:
        with bench.database.write() as session:
            claimed = leases.claim(session, "worker", lease_s=bench.settings.lease_s)
        assert claimed is not None
        supervisor.run(*claimed)
        assert list(runs_folder(bench.settings).glob("job_*")) == []

    return run_next


@contextmanager
def _running(run: Callable[[], None]) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=run)
    thread.start()
    yield thread
    thread.join(120)
    assert not thread.is_alive()


def _hanging(bench, job_id: str) -> dict[str, int] | None:
    """The process ids a hanging child told of, once its checkpoint is stored as well."""
    metrics = [event.data for event in bench.events(job_id) if event.type == "metric"]
    return metrics[0] if metrics and bench.job(job_id).checkpoint_key else None


def test_a_job_that_succeeds_leaves_figures_artifacts_and_events(bench, run) -> None:
    job_id = bench.add_job(SUCCEED)
    run()
    job = bench.job(job_id)
    assert (job.state, job.progress, job.epoch, job.owner) == ("succeeded", 1.0, 5, None)
    assert job.headline["pgd_accuracy_after"] == 1
    with bench.database.read() as session:
        found = artifacts.list_artifacts(session, job_id)
    assert [artifact.name for artifact in found] == ["model.atmc", "report.json"]
    assert found[0].sha256 == hashlib.sha256(b"small").hexdigest()
    assert found[0].bytes == bench.store.size(blob_key(found[0].sha256)) == 5
    assert bench.states(job_id) == [
        ("queued", 0),
        ("validating", 1),
        ("running", 1),
        ("succeeded", 1),
    ]
    epochs = [event.data["epoch"] for event in bench.events(job_id) if event.type == "progress"]
    assert epochs == [1, 2, 3, 4, 5]
    assert bench.store.keys("checkpoints") == []


def test_whatever_files_the_method_leaves_become_artifacts_of_their_type(bench, run) -> None:
    names = ["model_card.md", "report.html", "report.json", "sub-1_2.bin"]
    job_id = bench.add_job(SUCCEED | {"results": names, "headline": {"clean_accuracy_before": 0.5}})
    run()
    with bench.database.read() as session:
        found = artifacts.list_artifacts(session, job_id)
    assert {artifact.name: artifact.media_type for artifact in found} == {
        "model_card.md": "text/markdown; charset=utf-8",
        "report.html": "text/html; charset=utf-8",
        "report.json": "application/json",
        "sub-1_2.bin": "application/octet-stream",
    }
    # Nothing was compressed, so there is no figure of a compressed network.
    headline = bench.job(job_id).headline
    assert {name: figure for name, figure in headline.items() if figure is not None} == {
        "clean_accuracy_before": 0.5
    }


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ({"results": ["model.atmc"]}, "left no results/report.json"),
        ({"results": ["report.json", "a b"]}, "'a b'"),
        ({"results": ["report.json", ".hidden"]}, "'.hidden'"),
        ({"results": ["report.json", "a" * 101]}, "not a result"),
        ({"links": ["model.pt"]}, "'model.pt'"),
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


def test_the_child_gets_its_job_and_no_secrets(bench, run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATMC_STORE_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("DATABASE_PASSWORD", "hush")
    job_id = bench.add_job(SUCCEED)
    run()
    with bench.database.read() as session:
        artifact = artifacts.get_artifact(session, job_id, "report.json")
    with bench.store.open(blob_key(artifact.sha256)) as file:
        report = json.load(file)
    assert "hush" not in report["environment"].values()
    assert not any(name.startswith(("ATMC_", "AWS_")) for name in report["environment"])
    assert report["inputs"] == {"model.safetensors": "weights", "dataset": "images"}
    assert report["job"] == {
        "job_id": job_id,
        "attempt": 1,
        "spec": SUCCEED,
        "model": {
            "path": "inputs/model.safetensors",
            "architecture": "digits_cnn",
            "normalization": None,
        },
        "dataset": {"path": "inputs/dataset"},
        "device": "cpu",
        "processes": 1,
        "threads": 1,
    }


def test_a_refused_input_fails_the_job_at_once_and_keeps_all(bench, run) -> None:
    job_id = bench.add_job({"do": "refuse"}, model=b"not finite")
    run()
    job = bench.job(job_id)
    assert job.state == "failed"
    assert (job.error_code, job.error_message, job.error_param) == (
        "non_finite_weights",
        "conv1.weight has NaN",
        "conv1.weight",
    )
    assert job.failed_attempts == 0
    told = [event.type for event in bench.events(job_id)]
    assert told == ["state", "state", "stage", "error", "state"]
    assert bench.store.exists(blob_key(hashlib.sha256(b"not finite").hexdigest()))


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


def test_a_cancel_ends_the_child_and_all_it_started_within_five_seconds(
    bench, run, poll, is_running
) -> None:
    job_id = bench.add_job(STUBBORN)
    with _running(run) as thread:
        pids = poll(lambda: _hanging(bench, job_id))
        assert is_running(pids["grandchild"])
        bench.cancel(job_id)
        asked = time.monotonic()
        poll(lambda: not is_running(pids["pid"]) and not is_running(pids["grandchild"]))
        assert time.monotonic() - asked < 5
        thread.join(5)
    job = bench.job(job_id)
    assert (job.state, job.error_code) == ("cancelled", None)
    assert job.finished_at is not None


def test_the_time_limit_counts_all_attempts(bench, run, poll, is_running) -> None:
    job_id = bench.add_job(STUBBORN, time_limit_s=100.0)
    with bench.database.write() as session:
        _, attempt = leases.claim(session, "former", lease_s=30)
        leases.renew(session, attempt, lease_s=30, run_seconds=98.0)
        leases.release(session, attempt)
    with _running(run):
        pids = poll(lambda: _hanging(bench, job_id))
    assert not is_running(pids["pid"])
    assert not is_running(pids["grandchild"])
    job = bench.job(job_id)
    assert (job.state, job.error_code) == ("failed", "time_limit")
    assert "its limit of 100 seconds" in job.error_message
    # Two seconds were left of the limit; then the child had to end within five.
    assert (job.finished_at - job.started_at).total_seconds() < 2 + 5


def test_a_shutdown_gives_the_job_back_with_its_checkpoint_at_no_cost(
    bench, run, poll, is_running, shutdown: threading.Event
) -> None:
    job_id = bench.add_job({"do": "hang"})
    with _running(run):
        pids = poll(lambda: _hanging(bench, job_id))
        shutdown.set()
    assert not is_running(pids["pid"])
    job = bench.job(job_id)
    assert (job.state, job.attempt, job.failed_attempts) == ("queued", 1, 0)
    assert bench.store.exists(job.checkpoint_key)


def test_a_worker_that_was_overtaken_ends_its_child_and_writes_nothing(
    bench, run, poll, is_running
) -> None:
    job_id = bench.add_job({"do": "hang"})
    with _running(run):
        pids = poll(lambda: _hanging(bench, job_id))
        with bench.database.write() as session:
            # As a sweep after a long pause of this worker.
            session.execute(text("UPDATE jobs SET lease_expires_at = '2000-01-01 00:00:00.000000'"))
            assert leases.sweep(session).requeued == [job_id]
            assert leases.claim(session, "another", lease_s=30) is not None
    assert not is_running(pids["pid"])
    job = bench.job(job_id)
    assert (job.state, job.attempt, job.owner) == ("validating", 2, "another")
    assert bench.states(job_id)[-2:] == [("queued", 1), ("validating", 2)]


def test_the_lease_is_renewed_while_the_child_works(bench, run, poll) -> None:
    job_id = bench.add_job({"do": "hang"})
    with _running(run):
        first = poll(lambda: bench.job(job_id).lease_expires_at)
        later = poll(lambda: bench.job(job_id).run_seconds > 1.2 and bench.job(job_id))
        assert later.lease_expires_at > first
        with bench.database.write() as session:
            assert leases.sweep(session).requeued == []
        bench.cancel(job_id)


@pytest.mark.parametrize("column", [EMBEDDED])  # tests/e2e/test_chaos.py kills an S3 server.
def test_a_store_that_is_away_for_a_moment_costs_nothing(bench, run, poll) -> None:
    checkpoints = bench.settings.home / "objects" / "checkpoints"
    job_id = bench.add_job(SUCCEED | {"crash_at": 3})
    run()
    away = checkpoints.rename(checkpoints.with_name("away"))
    checkpoints.write_text("a file where the store needs a folder")
    with _running(run):
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
    with _running(run):
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


def test_only_abandoned_run_folders_are_removed(tmp_path: Path) -> None:
    (tmp_path / "abandoned" / "inputs").mkdir(parents=True)
    with run_folder(tmp_path, "held") as folder:
        remove_abandoned(tmp_path)
        assert folder.inputs.is_dir()
        assert not (tmp_path / "abandoned").exists()
    assert not folder.path.exists()
