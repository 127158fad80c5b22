"""Workers that are paused past their lease, woken too often or not at all, or out of room."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks.chaos import history_faults
from benchmarks.small_job import ARCHITECTURE, SPEC, TRAINING, undisturbed, uploads
from jobstore import artifacts, events
from jobstore.settings import Settings
from jobstore.wakeups import make_celery, wake
from jobstore.workers import queue_of
from tests.conftest import EMBEDDED


@pytest.fixture(scope="module")
def expected() -> str:
    """The hash of the artifact of an undisturbed run."""
    return undisturbed(0)


@pytest.fixture
def add(bench) -> Callable[[], str]:
    model, dataset = uploads()
    return lambda: bench.add_job(SPEC | {"seed": 0}, model, dataset, ARCHITECTURE)


def _trains(bench, job_id: str) -> bool:
    """Tell whether the events show an epoch of training."""
    return any(e.type == "progress" and e.data["stage"] in TRAINING for e in bench.events(job_id))


def _assert_unharmed(bench, job_id: str, expected: str) -> None:
    job = bench.job(job_id)
    assert job.state == "succeeded", job.error_message
    with bench.database.read() as session:
        assert artifacts.get_artifact(session, job_id, "model.atmc").sha256 == expected
        assert history_faults(job, events.list_events(session, job_id)) == []


@contextmanager
def _paused(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.slow
def test_a_worker_that_was_paused_past_its_lease_writes_nothing(
    bench, start, start_worker, poll, add, expected: str
) -> None:
    start("keeper")
    first = start_worker()
    job_id = add()
    poll(lambda: _trains(bench, job_id))
    paused_owner = bench.job(job_id).owner
    start_worker()
    with _paused(first.pid):
        poll(lambda: bench.job(job_id).attempt == 2)
        overtaken = bench.job(job_id).last_event_seq
    poll(lambda: bench.job(job_id).finished_at)
    _assert_unharmed(bench, job_id, expected)
    # Its child is gone, it wrote nothing after it was overtaken, and it lives.
    late = [e for e in bench.events(job_id) if e.seq > overtaken and e.attempt == 1]
    assert late == []
    assert bench.job(job_id).owner != paused_owner
    assert first.poll() is None


@pytest.mark.slow
def test_wake_ups_may_be_doubled_or_lost(
    bench, broker: str, start, start_worker, poll, add, expected: str
) -> None:
    doubled = add()
    celery = make_celery(Settings(broker_url=broker))
    for _ in range(20):
        assert wake(celery, queue_of(None, 0))
    start_worker()
    start_worker()
    poll(lambda: bench.job(doubled).finished_at)
    _assert_unharmed(bench, doubled, expected)
    assert bench.job(doubled).attempt == 1
    # No message at all: the sweep sends one.
    celery.control.purge()
    celery.close()
    lost = add()
    start("keeper")
    poll(lambda: bench.job(lost).finished_at)
    _assert_unharmed(bench, lost, expected)


@contextmanager
def _small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    """Put a file system of its own under what is in the folder; skips without the right to."""
    kept = folder.rename(folder.parent / "kept")
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs"]
    if subprocess.run(["mount", *options, folder], capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    try:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def _fill(path: Path) -> None:
    """Leave not a byte free."""
    with path.open("wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            with suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass


@pytest.mark.slow
@pytest.mark.parametrize("column", [EMBEDDED])
def test_a_full_disk_under_the_folder_store_costs_nothing_once_there_is_room(
    bench, settings: Settings, start_worker, poll, add, expected: str
) -> None:
    job_id = add()
    log = settings.home / "processes.log"
    with _small_disk(settings.home / "objects", megabytes=8):
        start_worker()
        poll(lambda: _trains(bench, job_id))
        filler = settings.home / "objects" / "filler"
        _fill(filler)
        poll(lambda: "storing a checkpoint failed, trying again" in log.read_text())
        # The lease is kept for longer than it lasts.
        full_at = time.monotonic()
        poll(lambda: time.monotonic() > full_at + 2 * settings.lease_s)
        job = bench.job(job_id)
        assert (job.state, job.attempt) == ("running", 1)
        assert job.lease_expires_at > datetime.now(UTC)
        filler.unlink()
        poll(lambda: bench.job(job_id).finished_at)
        _assert_unharmed(bench, job_id, expected)
        assert bench.job(job_id).attempt == 1
