"""Which worker a job may run on, and who is known to be there."""

import pytest

from jobstore import leases, workers
from jobstore.database import Database
from jobstore.jobs import get_job
from jobstore.workers import CPU, GPU, Offer, queue_of

ASKED = [(None, 0), (CPU, 0), (GPU, 1), (GPU, 2), (GPU, 4)]


@pytest.mark.parametrize(
    ("offer", "suited"),
    [
        (Offer(), [(None, 0), (CPU, 0)]),
        (Offer(gpus=1), [(None, 0), (GPU, 1)]),
        (Offer(gpus=2), [(None, 0), (GPU, 1), (GPU, 2)]),
    ],
)
def test_a_worker_claims_what_it_suits_oldest_first_and_listens_where_that_is_announced(
    database: Database, add_job, offer: Offer, suited: list[tuple[str | None, int]]
) -> None:
    jobs = [add_job(device=device, gpus=gpus) for device, gpus in reversed(ASKED)]
    fitting = [job.id for job in jobs if (job.device, job.gpus) in suited]
    claimed = []
    for _ in suited:
        with database.write() as session:
            job, _ = leases.claim(session, "worker", lease_s=60, offer=offer)
            claimed.append(job.id)
            assert offer.suits(job)
    assert claimed == fitting
    with database.write() as session:
        assert leases.claim(session, "worker", lease_s=60, offer=offer) is None
    assert sorted(offer.queues()) == sorted(queue_of(*asked) for asked in suited)
    left = [job for job in jobs if job.id not in fitting]
    assert not any(offer.suits(job) for job in left)
    with database.read() as session:
        assert all(get_job(session, job.id).state == "queued" for job in left)


def test_the_sweep_counts_what_waits_by_the_queue_of_its_wake_ups(
    database: Database, add_job
) -> None:
    for device, gpus in [*ASKED, (GPU, 2)]:
        add_job(device=device, gpus=gpus)
    with database.write() as session:
        waiting = leases.sweep(session).waiting
    assert waiting == {"atmc": 1, "atmc.cpu": 1, "atmc.gpu1": 1, "atmc.gpu2": 2, "atmc.gpu4": 1}


def test_a_worker_is_known_while_it_is_heard_of(database: Database) -> None:
    def known(seen_within_s: float) -> set[Offer]:
        with database.read() as session:
            return workers.known_offers(session, seen_within_s=seen_within_s)

    with database.write() as session:
        workers.announce(session, "one", Offer())
        workers.announce(session, "two", Offer(gpus=2))
        workers.announce(session, "two", Offer(gpus=2))
    assert known(60) == {Offer(), Offer(gpus=2)}
    assert known(-1) == set()
    with database.write() as session:
        workers.withdraw(session, "two")
        workers.forget_lost(session)
    assert known(60) == {Offer()}
