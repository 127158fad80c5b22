"""How attempts end, what they leave behind, and how a job is taken up again."""

import pytest

from jobstore import artifacts, jobs, leases
from jobstore.database import Database
from jobstore.errors import IllegalTransition, LeaseLost
from jobstore.leases import Attempt, JobError
from jobstore.states import RETRYABLE, JobState
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


def test_success_brings_the_headline_and_the_artifacts(database: Database, add_job) -> None:
    job = add_job()
    attempt = claim(database)
    # Whatever the method says is kept as it is: a new figure needs no new column.
    headline = HEADLINE | {"by_class": {"cat": [0.5, None]}}
    with database.write() as session:
        leases.finish(session, attempt, JobState.SUCCEEDED, headline=headline, artifacts=[ARTIFACT])
    done = stored_job(database, job.id)
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
    attempt = claim(database)
    with database.write() as session:
        leases.finish(session, attempt, JobState.FAILED, error=error)
    failed = stored_job(database, job.id)
    assert failed.state is JobState.FAILED
    assert JobError(failed.error_code, failed.error_message, failed.error_param) == error
    assert history(database, job.id)[-2:] == [("error", "non_finite_weights"), ("state", "failed")]


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        (JobState.SUCCEEDED, {}),
        (JobState.SUCCEEDED, {"headline": HEADLINE, "error": CRASH}),
        (JobState.FAILED, {}),
        (JobState.CANCELLED, {"error": CRASH}),
        (JobState.QUEUED, {}),
    ],
)
def test_an_outcome_that_does_not_fit_is_refused(
    database: Database, add_job, state: JobState, outcome: dict[str, object]
) -> None:
    job = add_job()
    attempt = claim(database)
    with (
        pytest.raises(ValueError, match="does not finish"),
        database.write() as session,
    ):
        leases.finish(session, attempt, state, **outcome)
    assert stored_job(database, job.id).state is JobState.VALIDATING


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
    told = _checkpoint(database, claim(database), "one", "two", "three", "three", "four")
    assert told == [None, None, "one", None, "two"]
    assert stored_job(database, job.id).checkpoint_keys == ["four", "three"]


def test_a_success_forgets_its_checkpoints_and_tells_of_them(database: Database, add_job) -> None:
    job = add_job()
    attempt = claim(database)
    _checkpoint(database, attempt, "one", "two")
    with database.write() as session:
        forgotten = leases.finish(session, attempt, JobState.SUCCEEDED, headline=HEADLINE)
    assert forgotten == ["two", "one"]
    assert stored_job(database, job.id).checkpoint_keys == []


@pytest.mark.parametrize("end", [JobState.FAILED, JobState.CANCELLED])
def test_a_retry_queues_the_job_again_at_its_checkpoint_with_everything_anew(
    database: Database, add_job, end: JobState
) -> None:
    job = add_job(max_attempts=1)
    attempt = claim(database)
    _checkpoint(database, attempt, "one")
    with database.write() as session:
        leases.renew(session, attempt, lease_s=30, run_seconds=59.0)
        jobs.request_cancel(session, job.id)
        leases.finish(session, attempt, end, error=CRASH if end is JobState.FAILED else None)
    with database.write() as session:
        jobs.retry(session, job.id)
    queued = stored_job(database, job.id)
    assert (queued.state, queued.retries, queued.checkpoint_key) == ("queued", 1, "one")
    assert (queued.failed_attempts, queued.run_seconds, queued.error_code) == (0, 0.0, None)
    assert (queued.cancel_requested_at, queued.finished_at) == (None, None)
    assert claim(database) == Attempt(job.id, 2, "worker")
    with pytest.raises(LeaseLost), database.write() as session:
        leases.finish(session, attempt, JobState.CANCELLED)
    assert history(database, job.id)[-2:] == [("state", "queued"), ("state", "validating")]


@pytest.mark.parametrize("state", [s for s in JobState if s not in RETRYABLE])
def test_only_what_has_failed_or_was_cancelled_is_retried(
    database: Database, add_job, state: JobState
) -> None:
    job = add_job()
    if state is not JobState.QUEUED:
        attempt = claim(database)
        with database.write() as session:
            if state is JobState.RUNNING:
                leases.report(session, attempt, [STAGE], first=0)
            elif state is JobState.SUCCEEDED:
                leases.finish(session, attempt, state, headline=HEADLINE)
    before = snapshot(database, job.id)
    with (
        pytest.raises(IllegalTransition, match=f"{state} cannot be retried"),
        database.write() as session,
    ):
        jobs.retry(session, job.id)
    assert snapshot(database, job.id) == before
