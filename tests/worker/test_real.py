"""Real workers, real children, the real method: what is killed goes on, and ends the same."""

import hashlib
import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from api.jobs.headline import Headline
from benchmarks.small_job import (
    ARCHITECTURE,
    SPEC,
    child_at_work,
    child_command,
    fill_folder,
    uploads,
)
from jobstore import artifacts, catalogue, leases
from jobstore.objects import blob_key
from jobstore.settings import Settings
from jobstore.wakeups import make_celery, wake
from jobstore.workers import queue_of
from worker.folder import is_result
from worker.supervisor import Supervisor


@dataclass(frozen=True)
class Upload:
    """What a user would send."""

    model: bytes
    dataset: bytes


@pytest.fixture(scope="module")
def upload() -> Upload:
    return Upload(*uploads())


@dataclass(frozen=True)
class Undisturbed:
    """A run that nothing happened to."""

    results: Path
    artifact: bytes
    events: list[dict[str, Any]]
    outcome: dict[str, Any]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """The child run by hand, its standard input closed from the beginning."""
    folder = tmp_path_factory.mktemp("undisturbed") / "job"
    # With its speed, which no other job here is asked for: the file is the same.
    fill_folder(folder, SPEC | {"evaluation": SPEC["evaluation"] | {"speed": True}})
    subprocess.run(child_command(folder), check=True, stdin=subprocess.DEVNULL, timeout=120)
    return Undisturbed(
        folder / "results",
        (folder / "results" / "model.atmc").read_bytes(),
        [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()],
        json.loads((folder / "outcome.json").read_text()),
    )


def test_a_child_runs_by_hand(undisturbed: Undisturbed) -> None:
    assert undisturbed.outcome["status"] == "succeeded"
    headline = undisturbed.outcome["headline"]
    assert headline["file_bytes"] == len(undisturbed.artifact)
    # The API describes all of it.
    assert set(headline) == set(Headline.model_fields)
    assert all(is_result(path) for path in undisturbed.results.iterdir())
    first, last = undisturbed.events[0], undisturbed.events[-1]
    assert (first["type"], first["stage"], first["status"]) == ("stage", "validating", "started")
    assert (last["type"], last["status"]) == ("stage", "finished")


@pytest.fixture
def run_next(bench) -> Callable[[], None]:
    """Claims the next job and runs one attempt of it in this process."""
    supervisor = Supervisor(
        bench.settings, bench.database, bench.store, device="cpu", shutdown=threading.Event()
    )

    def run() -> None:
        with bench.database.write() as session:
            claimed = leases.claim(session, "worker", lease_s=bench.settings.lease_s)
        assert claimed is not None
        supervisor.run(*claimed)

    return run


def _add(bench, upload: Upload) -> str:
    return bench.add_job(SPEC, upload.model, upload.dataset, ARCHITECTURE)


def _child_of(pid: int) -> psutil.Process:
    child = child_at_work(pid)
    assert child is not None, "no child is at work"
    return child


def _published(bench) -> bool:
    with bench.database.read() as session:
        return bool(catalogue.list_entries(session, "method"))


def _is_compressing(bench, job_id: str) -> bool:
    """Tell whether the job is in the middle of its second training stage, and checkpointed."""
    job = bench.job(job_id)
    return job.stage == "compressing" and (job.epoch or 0) in (2, 3) and bool(job.checkpoint_key)


def _break_newest_checkpoint(bench, job_id: str) -> None:
    """As a disk might: one bit, in the store."""
    job = bench.job(job_id)
    path = bench.settings.home / "checkpoint"
    bench.store.get_file(job.checkpoint_key, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    bench.store.put_file(job.checkpoint_key, path)


def _assert_resumed_and_equal(
    bench,
    job_id: str,
    undisturbed: Undisturbed,
    attempt: int,
    stages: tuple[str, ...] = ("compressing",),
) -> None:
    job = bench.job(job_id)
    assert (job.state, job.attempt) == ("succeeded", attempt), job.error_message
    resumed = [event for event in bench.events(job_id) if event.type == "resumed"]
    assert [event.attempt for event in resumed] == list(range(2, attempt + 1))
    assert resumed[0].data["stage"] in stages
    assert resumed[0].data["epoch"] in (1, 2, 3, 4)
    with bench.database.read() as session:
        artifact = artifacts.get_artifact(session, job_id, "model.atmc")
    with bench.store.open(blob_key(artifact.sha256)) as file:
        assert file.read() == undisturbed.artifact


@pytest.mark.slow
def test_a_job_whose_child_is_killed_goes_on_and_ends_the_same_even_with_a_broken_checkpoint(
    bench, run_next, poll, upload: Upload, undisturbed: Undisturbed
) -> None:
    job_id = _add(bench, upload)
    thread = threading.Thread(target=run_next)
    thread.start()
    poll(lambda: _is_compressing(bench, job_id))
    _child_of(psutil.Process().pid).kill()
    thread.join(30)
    killed = bench.job(job_id)
    assert (killed.state, killed.failed_attempts) == ("queued", 1)
    errors = [event.data for event in bench.events(job_id) if event.type == "error"]
    assert "was killed by SIGKILL" in errors[0]["message"]
    assert len(killed.checkpoint_keys) == 2
    _break_newest_checkpoint(bench, job_id)
    run_next()
    warnings = [event.data for event in bench.events(job_id) if event.type == "warning"]
    # Both attempts read the data, and look at the upload, whose weights are random.
    read = ["validation_split_cut", "upload_at_chance"]
    assert [w["code"] for w in warnings] == [*read, *read, "broken_checkpoint"]
    # The one before the first of the compression is the last of the stage before it.
    stages = ("robust_training", "compressing")
    _assert_resumed_and_equal(bench, job_id, undisturbed, attempt=2, stages=stages)


def test_a_job_whose_worker_is_killed_goes_on_in_another_and_ends_the_same(
    bench, start, start_worker, poll, is_running, upload: Upload, undisturbed: Undisturbed
) -> None:
    start("keeper")
    first = start_worker()
    job_id = _add(bench, upload)
    poll(lambda: _is_compressing(bench, job_id))
    child = _child_of(first.pid).pid
    first.kill()
    killed_at = time.monotonic()
    poll(lambda: not is_running(child))
    assert time.monotonic() - killed_at < 10

    start_worker()
    poll(lambda: bench.job(job_id).finished_at)
    _assert_resumed_and_equal(bench, job_id, undisturbed, attempt=2)
    codes = [event.data["code"] for event in bench.events(job_id) if event.type == "error"]
    assert codes == ["worker_lost"]
    # The worker's last act, after the job has ended; the other folder is the next child's.
    poll(
        lambda: (
            len([each for each in (bench.settings.home / "runs").iterdir() if each.is_dir()]) == 1
        )
    )


@pytest.mark.slow
def test_a_worker_that_is_asked_to_end_gives_its_job_back_and_the_next_is_cancelled_in_time(
    bench, broker: str, start_worker, poll, is_running, upload: Upload
) -> None:
    # Without a sweep: the first worker is woken by the message, the second looks by itself.
    first = start_worker()
    poll(lambda: _published(bench))
    job_id = _add(bench, upload)
    celery = make_celery(Settings(broker_url=broker))
    assert wake(celery, queue_of(None, 0))
    celery.close()
    poll(lambda: _is_compressing(bench, job_id))
    child = _child_of(first.pid).pid
    first.send_signal(signal.SIGTERM)
    assert first.wait(30) == 0
    assert not is_running(child)
    given_back = bench.job(job_id)
    assert (given_back.state, given_back.failed_attempts) == ("queued", 0)

    second = start_worker()
    poll(lambda: any(event.type == "resumed" for event in bench.events(job_id)))
    child = _child_of(second.pid).pid
    bench.cancel(job_id)
    asked = time.monotonic()
    poll(lambda: not is_running(child))
    assert time.monotonic() - asked < 5
    poll(lambda: bench.job(job_id).finished_at)
    assert bench.job(job_id).state == "cancelled"
    assert bench.states(job_id) == [
        ("queued", 0),
        ("validating", 1),
        ("running", 1),
        ("queued", 1),
        ("validating", 2),
        ("running", 2),
        ("cancelled", 2),
    ]


EVALUATE: dict[str, Any] = {
    "method": "evaluate",
    "threat": {"norm": "linf", "epsilon": 0.1},
    "evaluation": SPEC["evaluation"]
    | {"attacks": ["pgd", "square"], "pgd_steps": 40, "square_queries": 100, "batch_size": 10},
}


def _newest_checkpoint(folder: Path) -> int:
    """Its number; 0 if there is none."""
    return max((int(p.name[:6]) for p in (folder / "checkpoints").glob("*.pt")), default=0)


@pytest.mark.slow
def test_an_evaluation_that_is_killed_goes_on_where_it_was(poll, tmp_path: Path) -> None:
    figures = []
    for name in ("undisturbed", "killed"):
        folder = tmp_path / name
        fill_folder(folder, EVALUATE)
        command = child_command(folder)
        if name == "killed":
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
            # In the middle of the attacks' batches.
            poll(lambda: _newest_checkpoint(folder) >= 8)  # noqa: B023
            child.kill()
            assert child.wait() == -signal.SIGKILL
            assert not (folder / "outcome.json").exists()
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=120)
        report = json.loads((folder / "results" / "report.json").read_text())
        attacks = report["before"]["attacks"]
        figures.append([report["before"]["curve"], report["before"]["per_class"]])
        figures[-1] += [{**attack, "seconds": 0} for attack in attacks]
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    (resumed,) = [event for event in events if event["type"] == "resumed"]
    assert resumed["stage"] == "evaluating_upload"
    assert resumed["epoch"] >= 7
    assert figures[0] == figures[1]


def test_what_only_the_tensors_show_fails_the_job_in_its_first_stage_and_keeps_all(
    bench, run_next
) -> None:
    bad = Upload(*uploads(infinite_weight=True))
    job_id = _add(bench, bad)
    run_next()
    job = bench.job(job_id)
    assert (job.state, job.stage) == ("failed", "validating")
    assert (job.error_code, job.error_param) == ("non_finite_weights", "conv1.weight")
    assert job.error_message
    told = [event.type for event in bench.events(job_id)]
    assert told == ["state", "state", "stage", "error", "state"]
    for content in (bad.model, bad.dataset):
        assert bench.store.exists(blob_key(hashlib.sha256(content).hexdigest()))
