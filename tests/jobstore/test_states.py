"""The arrows, in the code and in the database."""

from itertools import product

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from jobstore import jobs
from jobstore.database import Database
from jobstore.errors import IllegalTransition
from jobstore.states import ACTIVE, FINAL, RETRYABLE, JobState, check_retry, check_transition

LEGAL = {
    ("queued", "validating"),
    ("queued", "cancelled"),
    ("validating", "running"),
    ("validating", "queued"),
    ("validating", "succeeded"),
    ("validating", "failed"),
    ("validating", "cancelled"),
    ("running", "queued"),
    ("running", "succeeded"),
    ("running", "failed"),
    ("running", "cancelled"),
}


@pytest.mark.parametrize(("old", "new"), list(product(JobState, JobState)))
def test_a_job_goes_only_along_the_arrows(old: JobState, new: JobState) -> None:
    if (old, new) in LEGAL:
        check_transition(old, new)
    else:
        with pytest.raises(IllegalTransition, match=f"{old} cannot become {new}"):
            check_transition(old, new)


def test_every_state_but_queued_is_either_active_or_final() -> None:
    assert set(JobState) == {JobState.QUEUED} | ACTIVE | FINAL
    assert not ACTIVE & FINAL


def _put_into(database: Database, job_id: str, state: JobState) -> None:
    """By legal arrows, in plain SQL."""
    way = {
        "queued": (),
        "validating": ("validating",),
        "running": ("validating", "running"),
        "cancelled": ("cancelled",),
    }.get(state.value, ("validating", state.value))
    for step in way:
        _write(database, job_id, step, attempt=int(step != "cancelled"))


def _write(database: Database, job_id: str, state: str, **columns: object) -> None:
    held = state in ACTIVE
    values = {
        "owner": "worker" if held else None,
        "lease_expires_at": "2030-01-01 00:00:00.000000" if held else None,
        "state": state,
    } | columns
    assignments = ", ".join(f"{name} = :{name}" for name in values)
    with database.engine.begin() as connection:
        connection.execute(
            text(f"UPDATE jobs SET {assignments} WHERE id = :id"), values | {"id": job_id}
        )


def _state(database: Database, job_id: str) -> str:
    with database.read() as session:
        return jobs.get_job(session, job_id).state


def test_the_database_has_the_same_arrows(database: Database, add_job) -> None:
    for old, new in product(JobState, JobState):
        if old is new:
            continue
        job = add_job()
        _put_into(database, job.id, old)
        attempt = int(old not in (JobState.QUEUED, JobState.CANCELLED))
        attempt += (old, new) == (JobState.QUEUED, JobState.VALIDATING)
        if (old, new) in LEGAL:
            _write(database, job.id, new, attempt=attempt)
            assert _state(database, job.id) == new
        else:
            with pytest.raises(IntegrityError, match="no such arrow"):
                _write(database, job.id, new, attempt=attempt)
            assert _state(database, job.id) == old


@pytest.mark.parametrize("old", list(JobState))
def test_the_database_takes_a_retry_for_one_only_where_one_is_counted(
    database: Database, add_job, old: JobState
) -> None:
    job = add_job()
    _put_into(database, job.id, old)
    attempt = int(old not in (JobState.QUEUED, JobState.CANCELLED))
    if old in FINAL:
        with pytest.raises(IntegrityError, match="no such arrow"):
            _write(database, job.id, "queued", attempt=attempt)
    if old in RETRYABLE:
        check_retry(old)
        _write(database, job.id, "queued", attempt=attempt, retries=1)
        return
    with pytest.raises(IllegalTransition, match="cannot be retried"):
        check_retry(old)
    if old is JobState.SUCCEEDED:
        with pytest.raises(IntegrityError, match="no such arrow"):
            _write(database, job.id, "queued", attempt=attempt, retries=1)


@pytest.mark.parametrize(
    ("state", "columns"),
    [
        ("queued", {"state": "validating"}),  # a claim without a new attempt
        ("queued", {"state": "validating", "attempt": 1}),  # without an owner
        ("queued", {"attempt": 1}),
        ("running", {"attempt": 2}),
        ("running", {"attempt": 0}),
        ("running", {"owner": "another"}),
        ("running", {"owner": None}),
        ("running", {"lease_expires_at": None}),
    ],
)
def test_the_database_refuses_an_owner_or_an_attempt_out_of_turn(
    database: Database, add_job, state: str, columns: dict[str, object]
) -> None:
    job = add_job()
    _put_into(database, job.id, JobState(state))
    assignments = ", ".join(f"{name} = :{name}" for name in columns)
    with (
        pytest.raises(IntegrityError, match="no such arrow"),
        database.engine.begin() as connection,
    ):
        connection.execute(
            text(f"UPDATE jobs SET {assignments} WHERE id = :id"), columns | {"id": job.id}
        )


@pytest.mark.parametrize(
    "columns",
    ["error_code = 'x'", "file_bytes = 7", "last_event_seq = 9", "finished_at = created_at"],
)
def test_the_database_keeps_what_has_ended_as_it_is(
    database: Database, add_job, columns: str
) -> None:
    job = add_job()
    with database.write() as session:
        jobs.request_cancel(session, job.id)
    with (
        pytest.raises(IntegrityError, match="no such arrow"),
        database.engine.begin() as connection,
    ):
        connection.execute(text(f"UPDATE jobs SET {columns} WHERE id = :id"), {"id": job.id})


def test_the_database_refuses_a_job_that_is_born_finished(database: Database, add_job) -> None:
    job = add_job()
    copied = "name, spec, model_id, dataset_id, progress, failed_attempts, max_attempts"
    copied += ", time_limit_s, run_seconds, last_event_seq, created_at, attempt"
    with (
        pytest.raises(IntegrityError, match="no such arrow"),
        database.engine.begin() as connection,
    ):
        connection.execute(
            text(
                f"INSERT INTO jobs (id, state, {copied}) "
                f"SELECT 'job_x', 'succeeded', {copied} FROM jobs WHERE id = :id"
            ),
            {"id": job.id},
        )
