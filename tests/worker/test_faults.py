"""Workers that misbehave: paused past their lease, an hour off, woken too often or not at all."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.chaos import history_faults
from benchmarks.small_job import ARCHITECTURE, SPEC, TRAINING, undisturbed, uploads
from jobstore import artifacts, events
from jobstore.settings import Settings
from jobstore.wakeups import make_celery, wake
from jobstore.workers import queue_of
from tests.conftest import PRODUCTION

FAKETIME = [
    Path(folder, "faketime/libfaketime.so.1")
    for folder in ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64")
]


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
    start("worker.sweep")
    first = start_worker()
    job_id = add()
    poll(lambda: _trains(bench, job_id))
    paused_owner = bench.job(job_id).owner
    start_worker()
    with _paused(first.pid):
        poll(lambda: bench.job(job_id).attempt == 2)
        overtaken = bench.job(job_id).last_event_seq
    poll(lambda: bench.job(job_id).finished_at, 120)
    _assert_unharmed(bench, job_id, expected)
    # Its child is gone, it wrote nothing after it was overtaken, and it lives.
    late = [e for e in bench.events(job_id) if e.seq > overtaken and e.attempt == 1]
    assert late == []
    assert bench.job(job_id).owner != paused_owner
    assert first.poll() is None


@pytest.mark.slow
@pytest.mark.parametrize("column", [PRODUCTION])  # SQLite's clock is the worker's own.
@pytest.mark.parametrize("offset", ["+1h", "-1h"])
def test_a_worker_whose_clock_is_an_hour_off_keeps_its_lease_and_takes_no_other(
    bench, start, poll, add, expected: str, offset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = next((path for path in FAKETIME if path.exists()), None)
    if library is None:
        pytest.skip("needs Debian's libfaketime")
    start("worker.sweep")
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("FAKETIME", offset)
    monkeypatch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    start("celery", "-A", "worker.app", "worker")
    start("worker.sweep")
    job_id = add()
    poll(lambda: _trains(bench, job_id), 120)
    left = bench.job(job_id).lease_expires_at - datetime.now(UTC)
    assert timedelta(0) < left < timedelta(seconds=bench.settings.lease_s + 1)
    poll(lambda: bench.job(job_id).finished_at, 120)
    _assert_unharmed(bench, job_id, expected)
    assert bench.job(job_id).attempt == 1


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
    poll(lambda: bench.job(doubled).finished_at, 120)
    _assert_unharmed(bench, doubled, expected)
    assert bench.job(doubled).attempt == 1
    # No message at all: the sweep sends one.
    celery.control.purge()
    celery.close()
    lost = add()
    start("worker.sweep")
    poll(lambda: bench.job(lost).finished_at, 120)
    _assert_unharmed(bench, lost, expected)


def _mounted(folder: Path, megabytes: int) -> bool:
    folder.mkdir()
    return os.system(f"mount -t tmpfs -o size={megabytes}m tmpfs {folder} 2>/dev/null") == 0


@pytest.mark.slow
@pytest.mark.parametrize("column", ["embedded"])
def test_a_full_disk_under_the_folder_store_costs_nothing_once_there_is_room(
    bench, settings: Settings, start_worker, start, poll, add, expected: str
) -> None:
    objects = settings.home / "objects"
    job_id = add()
    kept = settings.home / "kept"
    objects.rename(kept)
    if not _mounted(objects, 8):
        pytest.skip("needs the right to mount a small file system")
    try:
        os.system(f"cp -r {kept}/. {objects}")
        filler = objects / "filler"
        start("worker.sweep")
        start_worker()
        poll(lambda: _trains(bench, job_id))
        _fill(filler)
        before: Any = bench.job(job_id).checkpoint_key
        poll(lambda: psutil.disk_usage(str(objects)).free == 0)
        poll(lambda: bench.job(job_id).stage == "evaluating_artifact" or before is None, 120)
        assert not bench.job(job_id).finished_at
        filler.unlink()
        poll(lambda: bench.job(job_id).finished_at, 120)
        _assert_unharmed(bench, job_id, expected)
    finally:
        os.system(f"umount -l {objects}")


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
