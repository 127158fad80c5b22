"""The supervisor's mechanics, with a stand-in for the child that does as its spec says."""

import hashlib
import json
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import text

from jobstore import artifacts, leases
from jobstore.objects import blob_key
from jobstore.starts import Start
from tests.worker.conftest import SUCCEED, running
from worker import guard
from worker.folder import remove_abandoned, run_folder

STUBBORN = {"do": "hang", "stubborn": True}


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
    assert "PATH" in report["environment"]
    assert "hush" not in report["environment"].values()
    assert not any(name.startswith(("ATMC_", "AWS_")) for name in report["environment"])
    assert report["inputs"] == {"model.safetensors": "weights", "dataset": "images"}
    assert report["job"] == {
        "job_id": job_id,
        "attempt": 1,
        "spec": SUCCEED,
        "model": {
            "path": "inputs/model.safetensors",
            "sha256": hashlib.sha256(b"weights").hexdigest(),
            "architecture": "digits_cnn",
            "normalization": None,
        },
        "dataset": {
            "path": "inputs/dataset",
            "sha256": hashlib.sha256(b"images").hexdigest(),
        },
        "start": None,
        "products": True,
        "device": "cpu",
        "processes": 1,
        "threads": 1,
    }


def test_a_job_gets_the_denser_network_that_it_starts_from_or_fails_for_good(
    bench, run, supervisor
) -> None:
    denser = bench.add_job(SUCCEED)
    run()
    digest = hashlib.sha256(b"small").hexdigest()
    job_id = bench.add_job(SUCCEED, start=Start(denser, digest))
    run()
    with bench.database.read() as session:
        artifact = artifacts.get_artifact(session, job_id, "report.json")
    with bench.store.open(blob_key(artifact.sha256)) as file:
        report = json.load(file)
    told = {"path": "inputs/denser.atmc", "sha256": digest, "job_id": denser}
    assert report["job"]["start"] == told
    assert report["inputs"]["denser.atmc"] == "small"
    lost = bench.add_job(SUCCEED, start=Start(denser, digest))
    bench.store.delete(blob_key(digest))
    supervisor.cache.clear()
    run()
    job = bench.job(lost)
    assert (job.state, job.error_code, job.error_param) == ("failed", "start_gone", "start_from")
    assert denser in job.error_message


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


def test_a_cancel_ends_the_child_and_all_it_started_within_five_seconds(
    bench, run, poll, is_running
) -> None:
    job_id = bench.add_job(STUBBORN)
    with running(run) as thread:
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


def test_a_look_that_fails_does_not_end_the_guard(
    bench, run, poll, is_running, monkeypatch
) -> None:
    looked = []

    def broken(folder):
        looked.append(folder)
        raise OSError("cannot be looked at")

    monkeypatch.setattr(guard, "taken_by", broken)
    job_id = bench.add_job(STUBBORN)
    with running(run) as thread:
        pids = poll(lambda: _hanging(bench, job_id))
        poll(lambda: len(looked) >= 2)
        bench.cancel(job_id)
        thread.join(10)
    assert bench.job(job_id).state == "cancelled"
    assert not is_running(pids["pid"])


def test_the_time_limit_counts_all_attempts(bench, run, poll, is_running) -> None:
    job_id = bench.add_job(STUBBORN, time_limit_s=100.0)
    with bench.database.write() as session:
        _, attempt = leases.claim(session, "former", lease_s=30)
        leases.renew(session, attempt, lease_s=30, run_seconds=98.0)
        leases.release(session, attempt)
    with running(run):
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
    with running(run):
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
    with running(run):
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
    with running(run):
        first = poll(lambda: bench.job(job_id).lease_expires_at)
        later = poll(lambda: bench.job(job_id).run_seconds > 1.2 and bench.job(job_id))
        assert later.lease_expires_at > first
        with bench.database.write() as session:
            assert leases.sweep(session).requeued == []
        bench.cancel(job_id)


def test_only_abandoned_run_folders_are_removed(tmp_path: Path) -> None:
    (tmp_path / "abandoned" / "inputs").mkdir(parents=True)
    with run_folder(tmp_path, "held") as folder:
        remove_abandoned(tmp_path)
        assert folder.inputs.is_dir()
        assert not (tmp_path / "abandoned").exists()
    assert not folder.path.exists()
