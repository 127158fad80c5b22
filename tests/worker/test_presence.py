"""A worker says that it is there, hears what is for it, and says that it ends."""

import signal

from jobstore.settings import Settings
from jobstore.wakeups import make_celery, wake
from jobstore.workers import CPU, GPU, Offer, known_offers, queue_of


def test_a_worker_is_known_takes_what_it_can_run_and_is_gone_when_it_ends(
    bench, broker: str, start_worker, poll
) -> None:
    def known() -> set[Offer]:
        with bench.database.read() as session:
            return known_offers(session, seen_within_s=bench.settings.lease_s)

    # Without a sweep: its wake-ups are all it hears.
    worker = start_worker()
    poll(lambda: known() == {Offer()})
    for_gpus = bench.add_job({}, device=GPU, gpus=1)
    for_cpu = bench.add_job({}, device=CPU)
    celery = make_celery(Settings(broker_url=broker))
    assert wake(celery, queue_of(GPU, 1))
    assert wake(celery, queue_of(CPU, 0))
    celery.close()
    poll(lambda: bench.job(for_cpu).attempt >= 1)
    assert bench.job(for_gpus).attempt == 0
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    assert known() == set()
