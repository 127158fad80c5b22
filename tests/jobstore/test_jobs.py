import base64
from datetime import UTC, datetime, timedelta
from threading import Barrier, Thread

import pytest

from jobstore import artifacts, catalogue, events, jobs, leases, uploads
from jobstore.database import Database
from jobstore.errors import InvalidCursor, NotFound
from jobstore.jobs import Head
from jobstore.listing import Which
from jobstore.states import JobState


def test_a_new_job_is_queued_and_says_so(database: Database, add_job) -> None:
    job = add_job(name="first", spec={"method": "atmc", "seed": 0})
    with database.read() as session:
        read = jobs.get_job(session, job.id)
        told = events.list_events(session, job.id)
    assert read.state is JobState.QUEUED
    assert (read.name, read.spec) == ("first", {"method": "atmc", "seed": 0})
    assert (read.attempt, read.progress, read.headline) == (0, 0.0, None)
    assert abs(read.created_at - datetime.now(UTC)) < timedelta(seconds=5)
    assert [(event.seq, event.type, event.data) for event in told] == [
        (1, "state", {"state": "queued", "attempt": 0})
    ]


def test_ids_carry_their_kind_and_sort_by_age(add_job) -> None:
    made = [add_job() for _ in range(5)]
    assert all(job.id.startswith("job_") and len(job.id) == 36 for job in made)
    assert made[0].model_id.startswith("mdl_")
    assert made[0].dataset_id.startswith("dst_")
    ids = [job.id for job in made]
    assert ids == sorted(ids)


@pytest.mark.parametrize("missing", ["model", "dataset"])
def test_a_job_on_nothing_is_refused(database: Database, add_job, missing: str) -> None:
    job = add_job()
    ids = {"model_id": job.model_id, "dataset_id": job.dataset_id} | {f"{missing}_id": "x"}
    with (
        pytest.raises(NotFound, match=f"no {missing} 'x'") as refused,
        database.write() as session,
    ):
        uploads.hold_uploads(session, **ids)
    assert (refused.value.kind, refused.value.id) == (missing, "x")


@pytest.mark.parametrize(
    "get",
    [
        lambda session: jobs.get_job(session, "x"),
        lambda session: jobs.request_cancel(session, "x"),
        lambda session: uploads.get_model(session, "x"),
        lambda session: uploads.get_dataset(session, "x"),
        lambda session: artifacts.get_artifact(session, "x", "x"),
        lambda session: catalogue.get_entry(session, "architecture", "x"),
    ],
)
def test_what_is_not_there_is_not_found(database: Database, get) -> None:
    with database.write() as session, pytest.raises(NotFound, match="'x'"):
        get(session)


def test_pages_hold_every_job_once_newest_first(database: Database, add_job) -> None:
    made = [add_job().id for _ in range(7)]
    seen, cursor = [], None
    for expected in (3, 3, 1):
        with database.read() as session:
            page = jobs.list_jobs(session, Which(limit=3, cursor=cursor))
        seen += [job.id for job in page.jobs]
        assert len(page.jobs) == expected
        cursor = page.next
        add_job()  # A job that comes meanwhile shifts nothing.
    assert cursor is None
    assert seen == made[::-1]


def test_a_page_that_ends_with_the_last_job_has_no_next(database: Database, add_job) -> None:
    add_job()
    add_job()
    with database.read() as session:
        assert jobs.list_jobs(session, Which(limit=2)).next is None


def test_jobs_are_filtered_by_state(database: Database, add_job) -> None:
    first, second = add_job(), add_job()
    with database.write() as session:
        jobs.request_cancel(session, first.id)
    with database.read() as session:
        queued = jobs.list_jobs(session, state=JobState.QUEUED).jobs
        cancelled = jobs.list_jobs(session, state=JobState.CANCELLED).jobs
    assert [job.id for job in queued] == [second.id]
    assert [job.id for job in cancelled] == [first.id]


@pytest.mark.parametrize(
    "cursor",
    [
        *("nonsense!", "////", "a", "", "ü"),
        *(
            base64.urlsafe_b64encode(text).decode()
            for text in (b"\0", b"job_", b"job_" + b"0" * 31 + b"\0", b"mdl_" + b"0" * 32)
        ),
    ],
)
def test_a_foreign_cursor_is_refused(database: Database, cursor: str) -> None:
    with database.read() as session, pytest.raises(InvalidCursor):
        jobs.list_jobs(session, Which(cursor=cursor))


def test_the_heads_of_many_jobs_come_at_once(database: Database, add_job) -> None:
    queued, cancelled, _ = add_job(), add_job(), add_job()
    with database.write() as session:
        jobs.request_cancel(session, cancelled.id)
    with database.read() as session:
        heads = jobs.heads_of(session, {queued.id, cancelled.id, "job_0"})
        assert jobs.heads_of(session, []) == {}
    assert heads == {
        queued.id: Head(JobState.QUEUED, 1),
        cancelled.id: Head(JobState.CANCELLED, 2),
    }


def test_a_queued_job_is_cancelled_at_once(database: Database, add_job) -> None:
    job = add_job()
    with database.write() as session:
        cancelled = jobs.request_cancel(session, job.id)
    assert cancelled.state is JobState.CANCELLED
    assert cancelled.finished_at is not None
    with database.write() as session:
        assert leases.claim(session, "worker", lease_s=30) is None


def test_an_active_job_is_asked_to_stop_and_a_final_one_left_alone(
    database: Database, add_job
) -> None:
    job = add_job()
    with database.write() as session:
        _, attempt = leases.claim(session, "worker", lease_s=30)
    with database.write() as session:
        asked = jobs.request_cancel(session, job.id)
    assert asked.state is JobState.VALIDATING
    assert asked.cancel_requested_at is not None
    with database.write() as session:
        leases.finish(session, attempt, JobState.CANCELLED)
    with database.write() as session:
        again = jobs.request_cancel(session, job.id)
    assert again.cancel_requested_at == asked.cancel_requested_at
    with database.read() as session:
        states = [e.data["state"] for e in events.list_events(session, job.id) if e.type == "state"]
    assert states == ["queued", "validating", "cancelled"]


class _Entry:
    def __init__(self, kind: str, name: str, document: dict[str, object]) -> None:
        self.kind, self.name, self.document = kind, name, document


def test_publishing_again_replaces(database: Database) -> None:
    with database.write() as session:
        entries = [_Entry("architecture", "lenet", {"v": 1}), _Entry("attack", "pgd", {})]
        catalogue.publish(session, entries)
    with database.write() as session:
        catalogue.publish(session, [_Entry("architecture", "lenet", {"v": 2})])
        catalogue.publish(session, [_Entry("architecture", "allconv", {})])
    with database.read() as session:
        assert catalogue.get_entry(session, "architecture", "lenet").document == {"v": 2}
        names = [row.name for row in catalogue.list_entries(session, "architecture")]
        assert names == ["allconv", "lenet"]
        assert len(catalogue.list_entries(session, "attack")) == 1


def test_workers_that_publish_at_once_do_not_disturb_each_other(database: Database) -> None:
    entries = [_Entry("architecture", f"net{i}", {}) for i in range(10)]
    together, errors = Barrier(4), []

    def publish(order: int) -> None:
        together.wait()
        try:
            with database.write() as session:
                catalogue.publish(session, entries[:: (-1) ** order])
        except Exception as error:
            errors.append(error)

    threads = [Thread(target=publish, args=(order,)) for order in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with database.read() as session:
        assert len(catalogue.list_entries(session, "architecture")) == 10
