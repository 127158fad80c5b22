from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Barrier, Thread

import pytest
from sqlalchemy.orm import Session

from jobstore import artifacts, events, jobs, leases
from jobstore.database import Database, make_engine
from jobstore.errors import IllegalTransition, LeaseLost
from jobstore.events import EventType, NewEvent
from jobstore.leases import Attempt, JobError, NewArtifact
from jobstore.settings import Settings
from jobstore.states import RETRYABLE, JobState
from jobstore.tables import HEADLINE_FIELDS, Job

EXPIRED = -1.0
CRASH = JobError("child_crashed", "killed by signal 9")
STAGE = NewEvent(EventType.STAGE, {"stage": "robust", "status": "started"})
HEADLINE = dict.fromkeys(HEADLINE_FIELDS, 1.0) | {"accepted": False}
ARTIFACT = NewArtifact("model.atmc", "application/octet-stream", "c" * 64, 7)


def _claim(database: Database, owner: str = "worker", lease_s: float = 30) -> Attempt:
    with database.write() as session:
        claimed = leases.claim(session, owner, lease_s=lease_s)
    assert claimed is not None
    return claimed[1]


def _job(database: Database, job_id: str) -> Job:
    with database.read() as session:
        return jobs.get_job(session, job_id)


def _told(database: Database, job_id: str) -> list[tuple[str, object]]:
    """Every event as its type and the most telling of its fields."""
    with database.read() as session:
        found = events.list_events(session, job_id)
    assert [event.seq for event in found] == list(range(1, len(found) + 1))
    return [
        (event.type, event.data.get("state") or event.data.get("code") or event.data.get("stage"))
        for event in found
    ]


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
    assert _claim(database).job_id == second.id
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
        job = _job(database, job_id)
        assert (job.owner, job.attempt) == (owner, 1)


def test_a_renewal_prolongs_the_lease_and_tells_of_a_cancel(database: Database, add_job) -> None:
    job = add_job()
    attempt = _claim(database, lease_s=1)
    with database.write() as session:
        state = leases.renew(session, attempt, lease_s=100, run_seconds=12.5)
    assert not state.cancel_requested
    renewed = _job(database, job.id)
    assert renewed.lease_expires_at > datetime.now(UTC) + timedelta(seconds=90)
    assert renewed.run_seconds == 12.5
    with database.write() as session:
        jobs.request_cancel(session, job.id)
    with database.read() as session:
        assert leases.look(session, attempt).cancel_requested
    with database.write() as session:
        assert leases.renew(session, attempt, lease_s=100, run_seconds=13).cancel_requested


def test_state_stage_and_progress_follow_from_the_events(database: Database, add_job) -> None:
    job = add_job()
    attempt = _claim(database)
    validating = NewEvent(EventType.STAGE, {"stage": "validating", "status": "started"})
    with database.write() as session:
        leases.report(session, attempt, [validating], first=0)
    assert _job(database, job.id).state is JobState.VALIDATING

    figures = {"stage": "robust", "epoch": 2, "epochs": 5, "progress": 0.25, "eta_s": 60.0}
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    with database.write() as session:
        leases.report(
            session, attempt, [STAGE, NewEvent(EventType.PROGRESS, figures, time=moment)], first=1
        )
    running = _job(database, job.id)
    assert running.state is JobState.RUNNING
    assert {name: getattr(running, name) for name in figures} == figures
    assert _told(database, job.id)[2:] == [
        ("stage", "validating"),
        ("stage", "robust"),
        ("state", "running"),
        ("progress", "robust"),
    ]
    with database.read() as session:
        last = events.list_events(session, job.id, after=5)
    assert [(event.seq, event.time, event.attempt) for event in last] == [(6, moment, 1)]


def test_a_new_stage_begins_without_the_epochs_of_the_former(database: Database, add_job) -> None:
    job = add_job()
    attempt = _claim(database)
    figures = {"stage": "robust", "epoch": 5, "epochs": 5, "progress": 0.5, "eta_s": 60.0}
    finished = NewEvent(EventType.STAGE, {"stage": "robust", "status": "finished"})
    with database.write() as session:
        events_so_far = [STAGE, NewEvent(EventType.PROGRESS, figures), finished]
        leases.report(session, attempt, events_so_far, first=0)
    assert (_job(database, job.id).stage, _job(database, job.id).epoch) == ("robust", 5)
    compressing = NewEvent(EventType.STAGE, {"stage": "compressing", "status": "started"})
    with database.write() as session:
        leases.report(session, attempt, [compressing], first=3)
    begun = _job(database, job.id)
    assert (begun.stage, begun.epoch, begun.epochs, begun.progress) == (
        "compressing",
        None,
        None,
        0.5,
    )


def test_success_brings_the_headline_and_the_artifacts(database: Database, add_job) -> None:
    job = add_job()
    attempt = _claim(database)
    headline = HEADLINE | {"k": 1000, "nominal_ratio": None}
    with database.write() as session:
        leases.finish(session, attempt, JobState.SUCCEEDED, headline=headline, artifacts=[ARTIFACT])
    done = _job(database, job.id)
    assert (done.state, done.progress, done.owner) == (JobState.SUCCEEDED, 1.0, None)
    assert done.headline == headline
    assert done.finished_at is not None
    with database.read() as session:
        stored = artifacts.get_artifact(session, job.id, "model.atmc")
        assert artifacts.list_artifacts(session, job.id) == [stored]
    assert (stored.sha256, stored.bytes) == ("c" * 64, 7)


def test_a_failure_keeps_its_error_and_its_events(database: Database, add_job) -> None:
    job = add_job()
    error = JobError("non_finite_weights", "conv1.weight has NaN", "model")
    attempt = _claim(database)
    with database.write() as session:
        leases.finish(session, attempt, JobState.FAILED, error=error)
    failed = _job(database, job.id)
    assert failed.state is JobState.FAILED
    assert JobError(failed.error_code, failed.error_message, failed.error_param) == error
    assert _told(database, job.id)[-2:] == [("error", "non_finite_weights"), ("state", "failed")]


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        (JobState.SUCCEEDED, {}),
        (JobState.SUCCEEDED, {"headline": HEADLINE, "error": CRASH}),
        (JobState.SUCCEEDED, {"headline": HEADLINE | {"extra": 1}}),
        (JobState.FAILED, {}),
        (JobState.CANCELLED, {"error": CRASH}),
        (JobState.QUEUED, {}),
    ],
)
def test_an_outcome_that_does_not_fit_is_refused(
    database: Database, add_job, state: JobState, outcome: dict[str, object]
) -> None:
    job = add_job()
    attempt = _claim(database)
    with (
        pytest.raises(ValueError, match=r"does not finish|no column is for"),
        database.write() as session,
    ):
        leases.finish(session, attempt, state, **outcome)
    assert _job(database, job.id).state is JobState.VALIDATING


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


def _snapshot(database: Database, job_id: str) -> tuple[object, ...]:
    with database.read() as session:
        job = jobs.get_job(session, job_id)
        columns = tuple(getattr(job, column.name) for column in Job.__table__.columns)
        told = [(event.seq, event.type) for event in events.list_events(session, job_id)]
        return columns, told, artifacts.list_artifacts(session, job_id)


@pytest.mark.parametrize("since", ["swept", "claimed again", "finished"])
def test_a_stale_attempt_can_write_nothing(database: Database, add_job, since: str) -> None:
    job = add_job()
    stale = _claim(database, lease_s=EXPIRED)
    with database.write() as session:
        assert leases.sweep(session).requeued == [job.id]
    if since != "swept":
        # The same owner: the number alone must fence the former attempt off.
        current = _claim(database)
        assert current.number == stale.number + 1
    if since == "finished":
        with database.write() as session:
            leases.finish(session, current, JobState.CANCELLED)
    before = _snapshot(database, job.id)
    for name, write in WRITES.items():
        with pytest.raises(LeaseLost), database.write() as session:
            write(session, stale)
        assert _snapshot(database, job.id) == before, name


def test_another_owner_cannot_write(database: Database, add_job) -> None:
    add_job()
    attempt = _claim(database)
    impostor = Attempt(attempt.job_id, attempt.number, "another")
    with pytest.raises(LeaseLost), database.write() as session:
        leases.renew(session, impostor, lease_s=30, run_seconds=1)


def test_a_slow_worker_may_renew_until_it_is_swept(database: Database, add_job) -> None:
    add_job()
    attempt = _claim(database, lease_s=EXPIRED)
    with database.write() as session:
        leases.renew(session, attempt, lease_s=30, run_seconds=1)
    with database.write() as session:
        assert leases.sweep(session).requeued == []


def test_a_sweep_requeues_the_lost_and_leaves_the_held(database: Database, add_job) -> None:
    lost, held, waiting = add_job(), add_job(), add_job()
    lost_attempt = _claim(database, lease_s=EXPIRED)
    with database.write() as session:
        leases.set_checkpoint(session, lost_attempt, "checkpoints/1")
    _claim(database)
    with database.write() as session:
        swept = leases.sweep(session)
    assert (swept.requeued, swept.failed, swept.waiting) == ([lost.id], [], {"atmc": 2})
    assert _job(database, held.id).state is JobState.VALIDATING
    assert _job(database, waiting.id).state is JobState.QUEUED
    job = _job(database, lost.id)
    assert (job.state, job.owner, job.lease_expires_at) == (JobState.QUEUED, None, None)
    assert job.checkpoint_key == "checkpoints/1"
    assert job.error_code is None
    assert _told(database, lost.id)[-2:] == [("error", "worker_lost"), ("state", "queued")]
    # What was lost is older than what waits, so it is next.
    assert _claim(database) == Attempt(lost.id, 2, "worker")


def test_after_max_attempts_the_job_fails_with_worker_lost(database: Database, add_job) -> None:
    job = add_job(max_attempts=2)
    for expected in (JobState.QUEUED, JobState.FAILED):
        attempt = _claim(database, lease_s=EXPIRED)
        with database.write() as session:
            leases.set_checkpoint(session, attempt, "checkpoint")
        with database.write() as session:
            leases.sweep(session)
        assert _job(database, job.id).state is expected
    failed = _job(database, job.id)
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
        _claim(database, lease_s=EXPIRED)
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
    assert all(_job(database, job_id).failed_attempts == 1 for job_id in made)
    database.engine.dispose()


def test_a_crash_costs_an_attempt_and_a_release_none(database: Database, add_job) -> None:
    job = add_job(max_attempts=2)
    with database.write() as session:
        assert leases.release(session, _claim_in(session)) is JobState.QUEUED
    with database.write() as session:
        assert leases.fail_attempt(session, _claim_in(session), CRASH) is JobState.QUEUED
    assert _job(database, job.id).failed_attempts == 1
    with database.write() as session:
        assert leases.fail_attempt(session, _claim_in(session), CRASH) is JobState.FAILED
    failed = _job(database, job.id)
    assert (failed.attempt, failed.failed_attempts) == (3, 2)
    assert (failed.error_code, failed.error_message) == (CRASH.code, CRASH.message)
    assert [told for told in _told(database, job.id) if told[0] == "error"] == [
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
    attempt = _claim(database, lease_s=EXPIRED)
    with database.write() as session:
        jobs.request_cancel(session, job.id)
    with database.write() as session:
        if end == "release":
            leases.release(session, attempt)
        elif end == "crash":
            leases.fail_attempt(session, attempt, CRASH)
        else:
            assert leases.sweep(session).cancelled == [job.id]
    assert _job(database, job.id).state is JobState.CANCELLED


def _checkpoint(database: Database, attempt: Attempt, *keys: str) -> list[str | None]:
    told = []
    for key in keys:
        with database.write() as session:
            told.append(leases.set_checkpoint(session, attempt, key))
    return told


def test_the_two_newest_checkpoints_are_named_and_the_one_before_them_told(
    database: Database, add_job
) -> None:
    job = add_job()
    told = _checkpoint(database, _claim(database), "one", "two", "three", "three", "four")
    assert told == [None, None, "one", None, "two"]
    assert _job(database, job.id).checkpoint_keys == ["four", "three"]


def test_a_success_forgets_its_checkpoints_and_tells_of_them(database: Database, add_job) -> None:
    job = add_job()
    attempt = _claim(database)
    _checkpoint(database, attempt, "one", "two")
    with database.write() as session:
        forgotten = leases.finish(session, attempt, JobState.SUCCEEDED, headline=HEADLINE)
    assert forgotten == ["two", "one"]
    assert _job(database, job.id).checkpoint_keys == []


@pytest.mark.parametrize("end", [JobState.FAILED, JobState.CANCELLED])
def test_a_retry_queues_the_job_again_at_its_checkpoint_with_everything_anew(
    database: Database, add_job, end: JobState
) -> None:
    job = add_job(max_attempts=1)
    attempt = _claim(database)
    _checkpoint(database, attempt, "one")
    with database.write() as session:
        leases.renew(session, attempt, lease_s=30, run_seconds=59.0)
        jobs.request_cancel(session, job.id)
        leases.finish(session, attempt, end, error=CRASH if end is JobState.FAILED else None)
    with database.write() as session:
        jobs.retry(session, job.id)
    queued = _job(database, job.id)
    assert (queued.state, queued.retries, queued.checkpoint_key) == ("queued", 1, "one")
    assert (queued.failed_attempts, queued.run_seconds, queued.error_code) == (0, 0.0, None)
    assert (queued.cancel_requested_at, queued.finished_at) == (None, None)
    assert _claim(database) == Attempt(job.id, 2, "worker")
    with pytest.raises(LeaseLost), database.write() as session:
        leases.finish(session, attempt, JobState.CANCELLED)
    assert _told(database, job.id)[-2:] == [("state", "queued"), ("state", "validating")]


@pytest.mark.parametrize("state", [s for s in JobState if s not in RETRYABLE])
def test_only_what_has_failed_or_was_cancelled_is_retried(
    database: Database, add_job, state: JobState
) -> None:
    job = add_job()
    if state is not JobState.QUEUED:
        attempt = _claim(database)
        with database.write() as session:
            if state is JobState.RUNNING:
                leases.report(session, attempt, [STAGE], first=0)
            elif state is JobState.SUCCEEDED:
                leases.finish(session, attempt, state, headline=HEADLINE)
    before = _snapshot(database, job.id)
    with (
        pytest.raises(IllegalTransition, match=f"{state} cannot be retried"),
        database.write() as session,
    ):
        jobs.retry(session, job.id)
    assert _snapshot(database, job.id) == before


def test_events_are_listed_after_a_number_and_up_to_a_limit(database: Database, add_job) -> None:
    job = add_job()
    attempt = _claim(database)
    metrics = [NewEvent(EventType.METRIC, {"epoch": i}) for i in range(5)]
    with database.write() as session:
        leases.report(session, attempt, metrics, first=0)
    with database.read() as session:
        some = events.list_events(session, job.id, after=3, limit=2)
    assert [(event.seq, event.data) for event in some] == [(4, {"epoch": 1}), (5, {"epoch": 2})]


def test_events_told_again_after_a_lost_answer_are_there_once(database: Database, add_job) -> None:
    job = add_job()
    attempt = _claim(database)
    metrics = [NewEvent(EventType.METRIC, {"epoch": i}) for i in range(4)]
    for told, first in ((metrics[:3], 0), (metrics[:3], 0), (metrics, 0), (metrics[3:], 3)):
        with database.write() as session:
            leases.report(session, attempt, told, first=first)
    with database.read() as session:
        found = [e.data for e in events.list_events(session, job.id) if e.type == "metric"]
    assert found == [event.data for event in metrics]
    # The next attempt counts from 0 again.
    with database.write() as session:
        leases.release(session, attempt)
    again = _claim(database)
    with database.write() as session:
        leases.report(session, again, metrics[:1], first=0)
    with database.read() as session:
        assert events.list_events(session, job.id)[-1].data == {"epoch": 0}


def test_a_job_whose_claim_was_never_answered_goes_back_at_no_cost(
    database: Database, add_job
) -> None:
    unknown, others = add_job(), add_job()
    unanswered = _claim(database)
    with database.write() as session:
        leases.claim(session, "another", lease_s=60)
    with database.write() as session:
        leases.release_unknown(session, unanswered.owner)
    job = _job(database, unknown.id)
    assert (job.state, job.owner, job.failed_attempts) == (JobState.QUEUED, None, 0)
    assert _job(database, others.id).owner == "another"
    assert _claim(database) == Attempt(unknown.id, 2, "worker")
