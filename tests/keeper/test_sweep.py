import signal
import time

import pytest

from jobstore import leases
from jobstore.settings import Settings
from jobstore.wakeups import make_celery, pending
from jobstore.workers import queue_of
from keeper.sweep import sweep_once

ANY = queue_of(None, 0)


@pytest.fixture
def celery(broker: str):
    app = make_celery(Settings(broker_url=broker))
    yield app
    app.close()


def test_waiting_jobs_are_announced_once_each_however_often_it_sweeps(bench, celery) -> None:
    for _ in range(3):
        sweep_once(bench.database, celery)
    assert pending(celery, ANY) == 0
    bench.add_job({})
    bench.add_job({})
    for _ in range(3):
        sweep_once(bench.database, celery)
    assert pending(celery, ANY) == 2


def test_the_process_sweeps_and_ends_when_asked(bench, start, celery, poll) -> None:
    job_id = bench.add_job({})
    with bench.database.write() as session:
        leases.claim(session, "worker", lease_s=-1)
    process = start("keeper")
    poll(lambda: bench.job(job_id).state == "queued")
    poll(lambda: pending(celery, ANY) == 1)
    process.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    assert process.wait(60) == 0
    assert time.monotonic() - asked < 5
