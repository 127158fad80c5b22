"""Who is next: fair between tenants, then by priority, then by age, however long the queues are."""

import re
import time
from threading import Barrier, Thread
from typing import Any

import pytest
from sqlalchemy import insert, text, update

from jobstore import jobs, leases, quotas
from jobstore.database import Database
from jobstore.ids import new_job_id
from jobstore.leases import Attempt
from jobstore.objects import Stored
from jobstore.states import JobState
from jobstore.tables import Job, Tenant
from jobstore.tenants import get_or_create_tenant
from jobstore.workers import Offer

MANY = 1000


@pytest.fixture
def queue(database: Database, add_job):
    """Queues `count` jobs of a tenant; returns their ids, oldest first."""
    template = add_job()
    with database.write() as session:
        jobs.request_cancel(session, template.id)
    columns = {"model_id": template.model_id, "dataset_id": template.dataset_id}
    columns |= {"spec": {}, "max_attempts": 3, "time_limit_s": 60.0}

    def add(tenant: str, count: int = 1, priority: int = 0, **asked: object) -> list[str]:
        own = columns | {"tenant_id": tenant, "rank": -priority} | asked
        rows = [own | {"id": new_job_id()} for _ in range(count)]
        with database.write() as session:
            get_or_create_tenant(session, tenant)
            session.execute(insert(Job), rows)
        return [row["id"] for row in rows]

    return add


def claim(database: Database, **options: Any) -> Attempt | None:
    with database.write() as session:
        claimed = leases.claim(session, "w", lease_s=60, **options)
    return claimed and claimed[1]


def finish(database: Database, attempt: Attempt) -> None:
    with database.write() as session:
        leases.finish(session, attempt, JobState.CANCELLED)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_thousand_jobs_delay_anothers_first_by_at_most_one(
    database: Database, queue, workers: int
) -> None:
    flood = set(queue("red", MANY))
    at_work = [claim(database) for _ in range(workers)]
    assert {attempt.job_id for attempt in at_work} <= flood
    (late,) = queue("blue")
    # The next slot that falls free is blue's.
    finish(database, at_work.pop())
    assert claim(database).job_id == late


def test_tenants_take_turns_whatever_their_queues(database: Database, queue) -> None:
    queues = {"r": queue("red", 30), "b": queue("blue", 3), "g": queue("green", 3)}
    order = []
    for _ in range(9):
        attempt = claim(database)
        order.append(next(owner for owner, ids in queues.items() if attempt.job_id in ids))
        finish(database, attempt)
    rounds = [sorted(order[i : i + 3]) for i in (0, 3, 6)]
    assert rounds == [["b", "g", "r"]] * 3


def test_machines_are_shared_evenly(database: Database, queue) -> None:
    red, blue = set(queue("red", 30)), set(queue("blue", 30))
    held = [claim(database).job_id for _ in range(8)]
    assert len(red & set(held)) == len(blue & set(held)) == 4


def test_within_a_tenant_priority_goes_before_age_and_gains_nothing_over_others(
    database: Database, queue
) -> None:
    first, second = queue("red", 2)
    (urgent,) = queue("red", priority=5)
    (whenever,) = queue("red", priority=-5)
    (blue,) = queue("blue", priority=-100)
    taken = [claim(database).job_id for _ in range(5)]
    assert [job for job in taken if job != blue] == [urgent, first, second, whenever]
    assert taken.index(blue) <= 1


def test_a_tenant_at_its_limit_waits_and_holds_nobody_up(database: Database, queue) -> None:
    red, blue = queue("red", 5), queue("blue", 1)
    taken = [claim(database, max_running_jobs=2) for _ in range(4)]
    assert taken[3] is None
    assert [attempt.job_id in red for attempt in taken[:3]].count(True) == 2
    assert blue[0] in {attempt.job_id for attempt in taken[:3]}
    with database.write() as session:
        session.execute(update(Tenant).where(Tenant.id == "red").values(max_running_jobs=3))
    assert claim(database, max_running_jobs=2).job_id in red
    assert claim(database, max_running_jobs=2) is None
    finish(database, next(attempt for attempt in taken[:3] if attempt.job_id in red))
    assert claim(database, max_running_jobs=2).job_id in red


def test_whose_turn_it_is_goes_by_the_jobs_that_suit_the_worker(database: Database, queue) -> None:
    """One team's wish for GPUs neither holds up another's on a CPU nor is passed over on a GPU."""
    queue("red", 3, device="gpu", gpus=1)
    blue = queue("blue", 3)
    assert [claim(database).job_id for _ in range(2)] == blue[:2]
    turns = [claim(database, offer=Offer(gpus=1)) for _ in range(3)]
    # Red has nothing at work yet, then one, then two as blue has, who was served before.
    assert [blue.count(attempt.job_id) for attempt in turns] == [0, 0, 1]
    assert claim(database) is None


def test_claims_at_the_same_time_count_one_another(database: Database, queue) -> None:
    red, blue = set(queue("red", 20)), set(queue("blue", 20))
    together, held = Barrier(8), []

    def work() -> None:
        together.wait()
        held.append(claim(database, max_running_jobs=4).job_id)

    threads = [Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(held)) == 8
    assert len(red & set(held)) == len(blue & set(held)) == 4
    assert claim(database, max_running_jobs=4) is None


def test_a_claim_does_not_look_at_what_has_ended(database: Database, queue) -> None:
    queue("red", 3000)
    queue("blue", 10)
    with database.write() as session:
        session.execute(text("ANALYZE"))
        plan = explain(session)
    assert "ix_jobs_waiting" in plan
    # On SQLite a SCAN reads all of a table, or of an index: here of the tenants only.
    assert set(re.findall(r"(?:SCAN|Seq Scan on) (\S+)", plan)) == {"tenants"}


def explain(session) -> str:
    """The plan of the claim's choice, as the database tells it."""
    chosen = leases.next_job(leases.ON_CPU, None)
    statement = chosen.element.compile(session.get_bind(), compile_kwargs={"literal_binds": True})
    postgresql = session.get_bind().dialect.name == "postgresql"
    how = "EXPLAIN " if postgresql else "EXPLAIN QUERY PLAN "
    rows = session.connection().exec_driver_sql(how + str(statement).replace("%", "%%"))
    return "".join(f"{row[-1]}\n" for row in rows)


@pytest.mark.slow
def test_a_claim_stays_quick_beside_100_000_finished_rows(database: Database, queue) -> None:
    def median_ms() -> float:
        taken = []
        for _ in range(50):
            began = time.perf_counter()
            attempt = claim(database)
            taken.append(1000 * (time.perf_counter() - began))
            finish(database, attempt)
        return sorted(taken)[25]

    queue("red", MANY)
    queue("blue", MANY)
    before = median_ms()
    for tenant in ("red", "blue", "green", "white", "black"):
        ids = queue(tenant, 20_000)
        with database.write() as session:
            ended = update(Job).where(Job.id >= ids[0]).values(state=JobState.CANCELLED)
            session.execute(ended, execution_options={"synchronize_session": False})
    with database.write() as session:
        session.execute(text("ANALYZE"))
    after = median_ms()
    print(f"claim, median of 50: {before:.2f} ms alone, {after:.2f} ms beside 100,000 ended")
    assert after < 2 * before + 2


def test_an_upload_of_a_tenant_that_takes_long_holds_no_claim_up(
    settings, database: Database, queue
) -> None:
    if settings.database_url.startswith("sqlite"):
        pytest.skip("SQLite has one writer at a time; there the file is on the same machine")
    (waits,) = queue("red")
    with database.of("red").write() as uploading:
        quotas.check_queue(uploading, 10)
        quotas.check_storage(uploading, 10, Stored("staged/x", "a" * 64, 1))
        assert claim(database).job_id == waits
