"""A worker whose clock is an hour off: leases go by the database's clock.

The store is a folder: an S3 server refuses what was signed an hour off, and the worker asks again
until its clock is right.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from benchmarks.small_job import ARCHITECTURE, SPEC, TRAINING, undisturbed, uploads
from jobstore import artifacts
from jobstore.settings import Settings
from tests.conftest import new_database

LIBRARIES = [
    Path(folder, "faketime/libfaketime.so.1")
    for folder in ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64")
]
# With its monotonic clock left alone, the library breaks clock_nanosleep, by which Python sleeps.
SLEEP = """
import threading
import time

time.sleep = lambda seconds: threading.Event().wait(seconds) and None
"""


@pytest.fixture
def settings(postgres: str, migrated_database: str, tmp_path: Path) -> Iterator[Settings]:
    """A database with a clock of its own; SQLite's is the worker's."""
    own = {"lease_s": 3, "heartbeat_s": 1, "sweep_s": 0.5, "device": "cpu", "threads": 1}
    with new_database(postgres, migrated_database) as url:
        yield Settings(home=tmp_path, database_url=url, **own)


@pytest.mark.slow
@pytest.mark.parametrize("offset", ["+1h", "-1h"])
def test_a_worker_whose_clock_is_an_hour_off_keeps_its_lease_and_takes_no_other(
    bench, start, poll, tmp_path: Path, offset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = next((path for path in LIBRARIES if path.exists()), None)
    if library is None:
        pytest.skip("needs Debian's libfaketime")
    start("keeper")
    (tmp_path / "patched").mkdir()
    (tmp_path / "patched" / "sitecustomize.py").write_text(SLEEP)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "patched"))
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("FAKETIME", offset)
    monkeypatch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    start("celery", "-A", "worker.app", "worker")
    # It must not sweep by its own clock either.
    start("keeper")
    job_id = bench.add_job(SPEC | {"seed": 0}, *uploads(), ARCHITECTURE)
    poll(lambda: any(e.data.get("stage") in TRAINING for e in bench.events(job_id)))
    left = bench.job(job_id).lease_expires_at - datetime.now(UTC)
    assert timedelta(0) < left < timedelta(seconds=bench.settings.lease_s + 1)
    poll(lambda: bench.job(job_id).finished_at)
    job = bench.job(job_id)
    assert (job.state, job.attempt) == ("succeeded", 1), job.error_message
    with bench.database.read() as session:
        assert artifacts.get_artifact(session, job_id, "model.atmc").sha256 == undisturbed(0)
