"""A request that is sent twice acts once, whoever dies in between."""

from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from jobstore import idempotency, jobs
from jobstore.database import Database
from jobstore.dialects import now
from jobstore.errors import IdempotencyConflict, StillAtWork
from jobstore.idempotency import Answer, Request
from jobstore.tables import IdempotencyKey
from jobstore.tenants import get_or_create_tenant

ANSWER = Answer(202, {"location": "/jobs/job_1"}, {"id": "job_1"})


def request(fingerprint: str = "f", scope: str = "POST /jobs") -> Request:
    return Request.new(scope, "key", fingerprint * 64)


def begin(database: Database, request: Request) -> Answer | None:
    with database.write() as session:
        return idempotency.begin(session, request)


def answered(database: Database, request: Request) -> None:
    assert begin(database, request) is None
    with database.write() as session:
        idempotency.finish(session, request, ANSWER)


def grow_old(database: Database, seconds: float) -> None:
    with database.write() as session:
        then = now(session) - timedelta(seconds=seconds)
        session.execute(update(IdempotencyKey).values(created_at=then))


def count(database: Database) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(IdempotencyKey))


def test_an_answer_is_replayed_to_the_same_request_only(database: Database) -> None:
    answered(database, request())
    assert begin(database, request()) == ANSWER
    with pytest.raises(IdempotencyConflict, match="another POST /jobs"):
        begin(database, request("0"))
    assert begin(database, request(scope="POST /models")) is None


def test_of_two_requests_at_once_the_second_is_told_to_wait(database: Database) -> None:
    first, second = request(), request()
    assert begin(database, first) is None
    with pytest.raises(StillAtWork, match="POST /jobs"):
        begin(database, second)
    with pytest.raises(IdempotencyConflict):
        begin(database, request("0"))
    with database.write() as session:
        idempotency.finish(session, first, ANSWER)
    assert begin(database, second) == ANSWER


def test_a_refused_request_gives_its_key_back(database: Database) -> None:
    first = request()
    begin(database, first)
    with database.write() as session:
        idempotency.abandon(session, first)
    assert begin(database, request("0")) is None


def test_a_key_that_a_dead_process_holds_is_taken_over_and_it_can_finish_nothing(
    database: Database, add_job
) -> None:
    job = add_job()
    with database.write() as session:
        jobs.request_cancel(session, job.id)
    dead, second = request(), request()
    begin(database, dead)
    grow_old(database, idempotency.STALE_S + 1)
    assert begin(database, second) is None

    def finish_late() -> None:
        with database.write() as session:
            jobs.retry(session, job.id)
            idempotency.finish(session, dead, ANSWER)

    with pytest.raises(StillAtWork, match="begun anew"):
        finish_late()
    with database.write() as session:
        idempotency.abandon(session, dead)
        assert jobs.get_job(session, job.id).retries == 0
        idempotency.finish(session, second, ANSWER)
    assert begin(database, request()) == ANSWER


def test_an_answer_expires_after_a_day(database: Database) -> None:
    answered(database, request())
    grow_old(database, 86_400 - 60)
    assert begin(database, request()) == ANSWER
    grow_old(database, 86_400 + 1)
    assert begin(database, request("0")) is None
    grow_old(database, 86_400 - 60)
    with database.write() as session:
        idempotency.forget_expired(session)
    assert count(database) == 1
    grow_old(database, 86_400 + 1)
    with database.write() as session:
        idempotency.forget_expired(session)
    assert count(database) == 0


def test_a_key_is_a_tenants_own(database: Database) -> None:
    with database.write() as session:
        get_or_create_tenant(session, "red")
    answered(database, request())
    red = database.of("red")
    answered(red, request("0"))
    assert begin(red, request("0")) == ANSWER
    assert begin(database.of("default"), request()) == ANSWER
