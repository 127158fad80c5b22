import signal
import time
from pathlib import Path

import pytest

from jobstore import leases
from jobstore.settings import Settings
from jobstore.wakeups import make_celery, pending
from jobstore.workers import queue_of
from worker.sweep import sweep_once

ANY = queue_of(None, 0)


@pytest.fixture
def celery(broker: str):
    app = make_celery(Settings(broker_url=broker))
    yield app
    app.close()


def test_waiting_jobs_are_announced_once_each_however_often_it_sweeps(bench, celery) -> None:
    for _ in range(3):
        sweep_once(bench.settings, bench.database, bench.store, celery)
    assert pending(celery, ANY) == 0
    bench.add_job({})
    bench.add_job({})
    for _ in range(3):
        sweep_once(bench.settings, bench.database, bench.store, celery)
    assert pending(celery, ANY) == 2


def test_the_checkpoint_of_a_job_that_is_given_up_is_deleted_once_it_is_old(
    bench, celery, tmp_path: Path
) -> None:
    job_id = bench.add_job({}, max_attempts=1)
    (tmp_path / "checkpoint").write_bytes(b"1")
    bench.store.put_file("checkpoints/1", tmp_path / "checkpoint")
    with bench.database.write() as session:
        _, attempt = leases.claim(session, "worker", lease_s=-1)
        leases.set_checkpoint(session, attempt, "checkpoints/1")
    sweep_once(bench.settings, bench.database, bench.store, celery)
    assert bench.job(job_id).error_code == "worker_lost"
    assert bench.store.exists("checkpoints/1")
    old = bench.settings.model_copy(update={"keep_checkpoints_s": 0})
    sweep_once(old, bench.database, bench.store, celery)
    assert not bench.store.exists("checkpoints/1")
    assert bench.job(job_id).checkpoint_key is None


def test_the_process_sweeps_and_ends_when_asked(bench, start, celery, poll) -> None:
    job_id = bench.add_job({})
    with bench.database.write() as session:
        leases.claim(session, "worker", lease_s=-1)
    process = start("worker.sweep")
    poll(lambda: bench.job(job_id).state == "queued")
    poll(lambda: pending(celery, ANY) == 1)
    process.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    assert process.wait(10) == 0
    assert time.monotonic() - asked < 5
