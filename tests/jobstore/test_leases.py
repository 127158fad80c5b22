"""The lease: who holds a job, what its number fences off, and what becomes of what is lost."""

import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Barrier, Thread

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from jobstore import dialects, jobs, leases
from jobstore.database import Database, make_engine
from jobstore.errors import LeaseLost
from jobstore.leases import Attempt
from jobstore.settings import Settings
from jobstore.states import JobState
from jobstore.tables import Job
from tests.jobstore.attempts import (
    ARTIFACT,
    CRASH,
    HEADLINE,
    STAGE,
    claim,
    history,
    snapshot,
    stored_job,
)

EXPIRED = -1.0


def test_a_claim_takes_the_oldest_and_holds_it_by_the_database_s_clock(
    database: Database, add_job
) -> None:
    first, second = add_job(), add_job()
    with database.write() as session:
        job, attempt = leases.claim(session, "worker", lease_s=30)
    assert attempt == Attempt(first.id, 1, "worker")
    assert (job.state, job.attempt, job.owner) == (JobState.VALIDATING, 1, "worker")
    left = job.lease_expires_at - datetime.now(UTC)
    assert timedelta(seconds=25) < left <= timedelta(seconds=31)
    assert job.started_at is not None
    assert claim(database).job_id == second.id
    with database.write() as session:
        assert leases.claim(session, "worker", lease_s=30) is None


def test_no_row_is_claimed_twice(settings: Settings, database: Database, add_job) -> None:
    made = {add_job().id for _ in range(20)}
    together, claims, errors = Barrier(4), [], []

    def claim_all(owner: str) -> None:
        # An engine of its own: as separate as another process, for both databases.
        own = Database(make_engine(settings))
        together.wait()
        try:
            while True:
                with own.write() as session:
                    claimed = leases.claim(session, owner, lease_s=30)
                if claimed is None:
                    break
                claims.append((claimed[1].job_id, owner))
        except Exception as error:
            errors.append(error)
        own.engine.dispose()

    threads = [Thread(target=claim_all, args=(f"worker-{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert Counter(job_id for job_id, _ in claims) == Counter(made)
    for job_id, owner in claims:
        job = stored_job(database, job_id)
        assert (job.owner, job.attempt) == (owner, 1)


def test_a_renewal_prolongs_the_lease_and_tells_of_a_cancel(database: Database, add_job) -> None:
    job = add_job()
    attempt = claim(database, lease_s=1)
    with database.write() as session:
        state = leases.renew(session, attempt, lease_s=100, run_seconds=12.5)
    assert not state.cancel_requested
    renewed = stored_job(database, job.id)
    assert renewed.lease_expires_at > datetime.now(UTC) + timedelta(seconds=90)
    assert renewed.run_seconds == 12.5
    with database.write() as session:
        jobs.request_cancel(session, job.id)
    with database.read() as session:
        assert leases.look(session, attempt).cancel_requested
    with database.write() as session:
        assert leases.renew(session, attempt, lease_s=100, run_seconds=13).cancel_requested


WRITES: dict[str, Callable[[Session, Attempt], object]] = {
    "renew": lambda s, a: leases.renew(s, a, lease_s=30, run_seconds=9),
    "look": leases.look,
    "report": lambda s, a: leases.report(s, a, [STAGE], first=0),
    "set_checkpoint": lambda s, a: leases.set_checkpoint(s, a, "stale"),
    "release": leases.release,
    "fail_attempt": lambda s, a: leases.fail_attempt(s, a, CRASH),
    "succeed": lambda s, a: leases.finish(
        s, a, JobState.SUCCEEDED, headline=HEADLINE, artifacts=[ARTIFACT]
    ),
    "fail": lambda s, a: leases.finish(s, a, JobState.FAILED, error=CRASH),
    "cancel": lambda s, a: leases.finish(s, a, JobState.CANCELLED),
}


@pytest.mark.parametrize("since", ["swept", "claimed again", "finished"])
def test_a_stale_attempt_can_write_nothing(database: Database, add_job, since: str) -> None:
    job = add_job()
    stale = claim(database, lease_s=EXPIRED)
    with database.write() as session:
        assert leases.sweep(session).requeued == [job.id]
    if since != "swept":
        # The same owner: the number alone must fence the former attempt off.
        current = claim(database)
        assert current.number == stale.number + 1
    if since == "finished":
        with database.write() as session:
            leases.finish(session, current, JobState.CANCELLED)
    before = snapshot(database, job.id)
    for name, write in WRITES.items():
        with pytest.raises(LeaseLost), database.write() as session:
            write(session, stale)
        assert snapshot(database, job.id) == before, name


def test_another_owner_cannot_write(database: Database, add_job) -> None:
    add_job()
    attempt = claim(database)
    impostor = Attempt(attempt.job_id, attempt.number, "another")
    with pytest.raises(LeaseLost), database.write() as session:
        leases.renew(session, impostor, lease_s=30, run_seconds=1)


def test_a_slow_worker_may_renew_until_it_is_swept(database: Database, add_job) -> None:
    add_job()
    attempt = claim(database, lease_s=EXPIRED)
    with database.write() as session:
        leases.renew(session, attempt, lease_s=30, run_seconds=1)
    with database.write() as session:
        assert leases.sweep(session).requeued == []


def test_a_sweep_requeues_the_lost_and_leaves_the_held(database: Database, add_job) -> None:
    lost, held, waiting = add_job(), add_job(), add_job()
    lost_attempt = claim(database, lease_s=EXPIRED)
    with database.write() as session:
        leases.set_checkpoint(session, lost_attempt, "checkpoints/1")
    claim(database)
    with database.write() as session:
        swept = leases.sweep(session)
    assert (swept.requeued, swept.failed, swept.waiting) == ([lost.id], [], {"atmc": 2})
    assert stored_job(database, held.id).state is JobState.VALIDATING
    assert stored_job(database, waiting.id).state is JobState.QUEUED
    job = stored_job(database, lost.id)
    assert (job.state, job.owner, job.lease_expires_at) == (JobState.QUEUED, None, None)
    assert job.checkpoint_key == "checkpoints/1"
    assert job.error_code is None
    assert history(database, lost.id)[-2:] == [("error", "worker_lost"), ("state", "queued")]
    # What was lost is older than what waits, so it is next.
    assert claim(database) == Attempt(lost.id, 2, "worker")


def test_after_max_attempts_the_job_fails_with_worker_lost(database: Database, add_job) -> None:
    job = add_job(max_attempts=2)
    for expected in (JobState.QUEUED, JobState.FAILED):
        attempt = claim(database, lease_s=EXPIRED)
        with database.write() as session:
            leases.set_checkpoint(session, attempt, "checkpoint")
        with database.write() as session:
            leases.sweep(session)
        assert stored_job(database, job.id).state is expected
    failed = stored_job(database, job.id)
    assert failed.checkpoint_key == "checkpoint"
    assert failed.error_code == "worker_lost"
    assert "lost in attempt 2" in failed.error_message
    assert failed.finished_at is not None
    with database.write() as session:
        assert leases.claim(session, "worker", lease_s=30) is None


def test_sweeps_at_once_count_a_lost_worker_once(settings: Settings, add_job) -> None:
    database = Database(make_engine(settings))
    made = {add_job(max_attempts=2).id for _ in range(10)}
    for _ in made:
        claim(database, lease_s=EXPIRED)
    together, swept = Barrier(3), []

    def sweep() -> None:
        own = Database(make_engine(settings))
        together.wait()
        with own.write() as session:
            swept.extend(leases.sweep(session).requeued)
        own.engine.dispose()

    threads = [Thread(target=sweep) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(swept) == Counter(made)
    assert all(stored_job(database, job_id).failed_attempts == 1 for job_id in made)
    database.engine.dispose()


def test_a_crash_costs_an_attempt_and_a_release_none(database: Database, add_job) -> None:
    job = add_job(max_attempts=2)
    with database.write() as session:
        assert leases.release(session, _claim_in(session)) is JobState.QUEUED
    with database.write() as session:
        assert leases.fail_attempt(session, _claim_in(session), CRASH) is JobState.QUEUED
    assert stored_job(database, job.id).failed_attempts == 1
    with database.write() as session:
        assert leases.fail_attempt(session, _claim_in(session), CRASH) is JobState.FAILED
    failed = stored_job(database, job.id)
    assert (failed.attempt, failed.failed_attempts) == (3, 2)
    assert (failed.error_code, failed.error_message) == (CRASH.code, CRASH.message)
    assert [told for told in history(database, job.id) if told[0] == "error"] == [
        ("error", "child_crashed"),
        ("error", "child_crashed"),
    ]


def _claim_in(session: Session) -> Attempt:
    claimed = leases.claim(session, "worker", lease_s=30)
    assert claimed is not None
    return claimed[1]


@pytest.mark.parametrize("end", ["release", "crash", "sweep"])
def test_a_cancelled_job_does_not_run_again_when_its_worker_goes_first(
    database: Database, add_job, end: str
) -> None:
    job = add_job()
    attempt = claim(database, lease_s=EXPIRED)
    with database.write() as session:
        jobs.request_cancel(session, job.id)
    with database.write() as session:
        if end == "release":
            leases.release(session, attempt)
        elif end == "crash":
            leases.fail_attempt(session, attempt, CRASH)
        else:
            assert leases.sweep(session).cancelled == [job.id]
    assert stored_job(database, job.id).state is JobState.CANCELLED


def test_a_job_whose_claim_was_never_answered_goes_back_at_no_cost(
    database: Database, add_job
) -> None:
    unknown, others = add_job(), add_job()
    unanswered = claim(database)
    with database.write() as session:
        leases.claim(session, "another", lease_s=60)
    with database.write() as session:
        leases.release_unknown(session, unanswered.owner)
    job = stored_job(database, unknown.id)
    assert (job.state, job.owner, job.failed_attempts) == (JobState.QUEUED, None, 0)
    assert stored_job(database, others.id).owner == "another"
    assert claim(database) == Attempt(unknown.id, 2, "worker")


def test_a_worker_that_stops_inside_a_transaction_loses_it(
    dialect: str, settings: Settings, database: Database, add_job, monkeypatch: pytest.MonkeyPatch
) -> None:
    if dialect == "sqlite":
        pytest.skip("SQLite has no such limit: a paused writer holds up the others")
    job = add_job()
    attempt = claim(database, lease_s=EXPIRED)
    monkeypatch.setattr(dialects, "_PATIENCE_MS", 300)
    paused = Database(make_engine(settings))

    def go_on_late() -> None:
        with paused.write() as session:
            session.get(Job, job.id, with_for_update=True)
            swept, deadline = [], time.monotonic() + 30
            while not swept and time.monotonic() < deadline:
                with database.write() as other:
                    swept = leases.sweep(other).requeued
            assert swept == [job.id]
            leases.renew(session, attempt, lease_s=100, run_seconds=1)

    with pytest.raises(OperationalError, match="idle-in-transaction"):
        go_on_late()
    paused.engine.dispose()
