"""What expires goes, what anything refers to stays, and the store and the rows agree by count."""

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from jobstore import incoming, leases, retention, uploads
from jobstore.blobs import (
    START,
    UNSETTLED_S,
    delete_unreferenced,
    stored_at_most,
    stored_bytes,
    touch,
    walk_on,
)
from jobstore.deletion import delete_dataset, delete_job, delete_model, drop
from jobstore.dialects import now
from jobstore.errors import Expired, InUse, LeaseLost, NotEnded, NotFound
from jobstore.incoming import Chunk
from jobstore.jobs import request_cancel, retry
from jobstore.leases import NewArtifact
from jobstore.objects import Found, ObjectStore, blob_key, staged_key
from jobstore.states import JobState
from jobstore.tables import (
    Artifact,
    Blob,
    Dataset,
    Event,
    IncomingUpload,
    Job,
    Model,
    Tenant,
    UploadChunk,
)
from jobstore.tenants import get_or_create_tenant
from keeper.retention import retain_once
from keeper.sweep import sweep_uploads

KEEP = {
    "keep_uploads_s": 1000.0,
    "keep_checkpoints_s": 100.0,
    "keep_artifacts_s": 1000.0,
    "keep_events_s": 1000.0,
}


@pytest.fixture
def retain(bench):
    """Runs the slower half of the sweep; returns the audit's figures as a tuple.

    They are (objects, references, unsettled, unreferenced, dangling).
    """

    def run(**terms: float | None) -> tuple[int, ...]:
        settings = bench.settings.model_copy(update=KEEP | terms)
        return tuple(vars(retain_once(settings, bench.database, bench.store)).values())

    return run


@pytest.fixture
def put(bench, tmp_path: Path):
    """Stores a blob as an upload does; returns what refers to it."""

    def run(content: bytes, store: ObjectStore | None = None) -> dict[str, Any]:
        path = tmp_path / "content"
        path.write_bytes(content)
        stored = (store or bench.store).put_blob(path)
        with bench.database.write() as session:
            touch(session, "default", stored.sha256, stored.bytes)
        return {"sha256": stored.sha256, "bytes": stored.bytes}

    return run


def age(bench, seconds: float) -> None:
    """Let everything have happened so long ago; what has ended keeps the rest of its row."""
    with bench.database.write() as session:
        by = timedelta(seconds=seconds)
        for kind, column in (
            (Model, "created_at"),
            (Dataset, "created_at"),
            (Blob, "touched_at"),
        ):
            moments = dict(session.execute(select(kind.sha256, getattr(kind, column))).all())
            for sha256, moment in moments.items():
                session.execute(
                    update(kind).where(kind.sha256 == sha256).values({column: moment - by})
                )


def two_days_pass(bench, monkeypatch) -> None:
    """Let it be two days later in the store, whose own clock cannot be set, and in the rows."""
    two_days, find = timedelta(days=2), ObjectStore.find

    def long_ago(store: ObjectStore, prefix: str = ""):
        return (Found(f.key, f.bytes, f.modified - two_days) for f in find(store, prefix))

    monkeypatch.setattr(ObjectStore, "find", long_ago)
    age(bench, two_days.total_seconds())


def end(bench, *, ago_s: float = 0, state: JobState = JobState.CANCELLED, put=None) -> str:
    """Run the next job to its end; returns its id."""
    with bench.database.write() as session:
        _, attempt = leases.claim(session, "w", lease_s=60)
    outcome: dict[str, Any] = {}
    if state is JobState.SUCCEEDED:
        outcome = {"headline": {}, "artifacts": [NewArtifact("m", "x", **put(b"result"))]}
    with bench.database.write() as session:
        # Ended jobs do not change, so it has to end at the time it is to have ended.
        finished = now(session) - timedelta(seconds=ago_s)
        leases.finish(session, attempt, state, **outcome)
        session.get(Job, attempt.job_id).finished_at = finished
    return attempt.job_id


def count(bench, kind: type) -> int:
    with bench.database.read() as session:
        return len(session.scalars(select(kind)).all())


def test_an_upload_that_no_job_uses_expires_with_its_bytes(bench, retain, put) -> None:
    with bench.database.write() as session:
        uploads.create_dataset(session, filename="d", summary={}, **put(b"data"))
    assert retain() == (1, 1, 0, 0, 0)
    age(bench, 1001)
    assert retain() == (1, 0, 1, 0, 0)
    assert count(bench, Dataset) == 0
    age(bench, UNSETTLED_S)
    assert retain() == (0, 0, 0, 0, 0)
    assert bench.store.keys() == []


def test_an_upload_is_kept_while_a_job_needs_it_and_then_for_its_time(bench, retain) -> None:
    job_id = bench.add_job({})
    age(bench, 10 * UNSETTLED_S)
    assert retain() == (2, 2, 0, 0, 0)
    end(bench, ago_s=900)
    assert retain() == (2, 2, 0, 0, 0)
    retain(keep_uploads_s=800)
    # The rows stand for the job that used them; the bytes are gone.
    assert bench.store.keys() == []
    with bench.database.read() as session:
        model = session.scalars(select(Model)).one()
        assert model.expired_at is not None
    with pytest.raises(Expired, match="model"), bench.database.write() as session:
        retry(session, job_id)
    with bench.database.write() as session:
        drop(bench.database, bench.store, delete_job(session, job_id))
    retain(keep_uploads_s=800)
    assert count(bench, Model) == count(bench, Dataset) == 0


def test_results_and_events_expire_and_the_job_stays(bench, retain, put) -> None:
    bench.add_job({})
    job_id = end(bench, ago_s=500, state=JobState.SUCCEEDED, put=put)
    age(bench, 2 * UNSETTLED_S)
    assert retain(keep_uploads_s=None) == (3, 3, 0, 0, 0)
    assert (count(bench, Artifact), count(bench, Event)) == (1, 3)
    assert retain(keep_uploads_s=None, keep_artifacts_s=400) == (2, 2, 0, 0, 0)
    assert (count(bench, Artifact), count(bench, Event)) == (0, 3)
    retain(keep_uploads_s=None, keep_events_s=400)
    assert count(bench, Event) == 0
    assert bench.job(job_id).state is JobState.SUCCEEDED


def test_checkpoints_of_the_failed_expire(bench, retain, tmp_path: Path) -> None:
    job_id = bench.add_job({})
    (tmp_path / "c").write_bytes(b"c")
    with bench.database.write() as session:
        _, attempt = leases.claim(session, "w", lease_s=60)
        for key in ("checkpoints/j/1/one", "checkpoints/j/1/two"):
            bench.store.put_file(key, tmp_path / "c")
            leases.set_checkpoint(session, attempt, key)
        leases.release(session, attempt)
    assert retain() == (4, 4, 0, 0, 0)
    end(bench, ago_s=90)
    assert retain() == (4, 4, 0, 0, 0)
    assert retain(keep_checkpoints_s=80) == (2, 2, 0, 0, 0)
    assert bench.job(job_id).checkpoint_keys == []


def test_each_tenant_has_terms_of_its_own(bench, retain, put) -> None:
    with bench.database.write() as session:
        get_or_create_tenant(session, "red").keep_uploads_s = 50_000.0
        session.get(Tenant, "default").keep_uploads_s = 90_000.0
    for tenant, content in (("red", b"red"), ("default", b"default")):
        stored = put(content, bench.store.of(tenant))
        with bench.database.of(tenant).write() as session:
            touch(session, tenant, **stored)
            uploads.create_dataset(session, filename="d", summary={}, **stored)
    age(bench, 49_000)
    retain()
    assert count(bench, Dataset) == 2
    age(bench, 2_000)
    retain()
    with bench.database.read() as session:
        assert session.scalars(select(Dataset.tenant_id)).all() == ["default"]
    assert bench.store.keys("tenants/") == []


def test_bytes_stay_while_anything_refers_to_them(bench, put) -> None:
    with bench.database.write() as session:
        stored = put(b"same")
        first, second = (
            uploads.create_dataset(session, filename="d", summary={}, **stored) for _ in range(2)
        )
    age(bench, 2 * UNSETTLED_S)
    for dataset, left in ((first, 1), (second, 0)):
        with bench.database.write() as session:
            freed = delete_dataset(session, dataset.id)
        drop(bench.database, bench.store, freed)
        assert len(bench.store.keys()) == left


def test_deleting_a_job_takes_its_own_and_leaves_what_it_was_made_of(bench, put) -> None:
    bench.add_job({})
    job_id = end(bench, state=JobState.SUCCEEDED, put=put)
    age(bench, 2 * UNSETTLED_S)
    job = bench.job(job_id)
    for delete, id in ((delete_model, job.model_id), (delete_dataset, job.dataset_id)):
        with pytest.raises(InUse), bench.database.write() as session:
            delete(session, id)
    with bench.database.write() as session:
        freed = delete_job(session, job_id)
    drop(bench.database, bench.store, freed)
    assert len(bench.store.keys()) == 2
    assert count(bench, Event) == count(bench, Artifact) == count(bench, Job) == 0
    for delete, id in ((delete_model, job.model_id), (delete_dataset, job.dataset_id)):
        with bench.database.write() as session:
            freed = delete(session, id)
        drop(bench.database, bench.store, freed)
    assert bench.store.keys() == []
    with pytest.raises(NotFound), bench.database.write() as session:
        delete_job(session, job_id)


@pytest.mark.parametrize("claimed", [False, True])
def test_a_job_that_has_not_ended_is_not_deleted(bench, claimed: bool) -> None:
    job_id = bench.add_job({})
    if claimed:
        with bench.database.write() as session:
            leases.claim(session, "w", lease_s=60)
    with pytest.raises(NotEnded), bench.database.write() as session:
        delete_job(session, job_id)
    with bench.database.write() as session:
        request_cancel(session, job_id)


def test_what_crashes_left_is_found_and_deleted_once_it_is_old(
    bench, retain, monkeypatch, tmp_path: Path
) -> None:
    bench.add_job({})
    (tmp_path / "x").write_bytes(b"x")
    digest = "ab" * 32
    for key in (
        "staged/abandoned",
        "checkpoints/job_1/1/never-named",
        blob_key(digest),
        blob_key(digest, "red"),
    ):
        bench.store.put_file(key, tmp_path / "x")
    # Nothing of it is old.
    assert retain() == (6, 2, 4, 0, 0)
    assert len(bench.store.keys()) == 6
    two_days_pass(bench, monkeypatch)
    assert retain(keep_uploads_s=None) == (2, 2, 0, 0, 0)
    assert len(bench.store.keys()) == 2


def test_checkpoints_go_though_the_answer_that_names_them_was_lost(
    bench, retain, put, monkeypatch, tmp_path: Path
) -> None:
    """The database took the job's end, and the worker never heard what it is to delete."""
    bench.add_job({})
    (tmp_path / "x").write_bytes(b"x")
    with bench.database.write() as session:
        _, attempt = leases.claim(session, "w", lease_s=60)
    for key in ("checkpoints/job_1/1/first", "checkpoints/job_1/1/second"):
        bench.store.put_file(key, tmp_path / "x")
        with bench.database.write() as session:
            leases.set_checkpoint(session, attempt, key)
    outcome = {"headline": {}, "artifacts": [NewArtifact("m", "x", **put(b"result"))]}
    with bench.database.write() as session:
        assert len(leases.finish(session, attempt, JobState.SUCCEEDED, **outcome)) == 2
    # Asked again, it is told that it is too late.
    with pytest.raises(LeaseLost), bench.database.write() as session:
        leases.finish(session, attempt, JobState.SUCCEEDED, **outcome)
    assert retain() == (5, 3, 2, 0, 0)
    two_days_pass(bench, monkeypatch)
    assert retain(keep_uploads_s=None) == (3, 3, 0, 0, 0)
    assert [found.key for found in bench.store.find("checkpoints/")] == []


def test_uploads_on_their_way_are_counted_and_abandoned_ones_go(
    bench, retain, monkeypatch, tmp_path: Path
) -> None:
    """A tus upload in two pieces, a direct one that has come and one that has not."""
    (tmp_path / "piece").write_bytes(b"piece")

    def announce(lifetime_s: float, sha256: str | None = None) -> IncomingUpload:
        new = {"filename": "", "bytes": 10, "lifetime_s": lifetime_s, "sha256": sha256}
        with bench.database.write() as session:
            return incoming.create_upload(session, **new)

    for lifetime_s in (10_000, 90_000):
        resumable = announce(lifetime_s)
        chunks = [Chunk(staged_key(), 5) for _ in range(2)]
        direct, _ = (announce(lifetime_s, "ab" * 32) for _ in range(2))
        for key in (direct.direct_key, *(chunk.key for chunk in chunks)):
            bench.store.put_file(key, tmp_path / "piece")
        with bench.database.write() as session:
            incoming.append(session, resumable.id, 0, chunks)
    assert retain() == (4, 4, 0, 0, 0)
    # Later (the store's own clock cannot be set): the first three are past their time.
    late = timedelta(days=30)
    find = ObjectStore.find

    def long_ago(store: ObjectStore, prefix: str = ""):
        return (Found(f.key, f.bytes, f.modified - late) for f in find(store, prefix))

    monkeypatch.setattr(ObjectStore, "find", long_ago)
    assert retain() == (4, 4, 0, 0, 0)
    with bench.database.write() as session:
        rows = session.scalars(select(IncomingUpload))
        for row in rows:
            row.expires_at -= timedelta(seconds=20_000)
    sweep_uploads(bench.database, bench.store)
    assert retain() == (2, 2, 0, 0, 0)
    assert len(bench.store.keys("staged/")) == 3
    # A piece whose row is gone is nobody's, and one that is gone is missed.
    with bench.database.write() as session:
        first = session.scalars(select(UploadChunk).order_by(UploadChunk.offset)).first()
        session.delete(first)
    assert retain() == (1, 1, 0, 0, 0)
    with bench.database.read() as session:
        (left,) = session.scalars(select(UploadChunk.key))
    bench.store.delete(left)
    assert retain() == (0, 1, 0, 0, 1)


def test_the_audit_counts_what_is_wrong(bench, retain, put, caplog) -> None:
    bench.add_job({})
    with bench.database.write() as session:
        stored = put(b"lost")
        uploads.create_dataset(session, filename="d", summary={}, **stored)
    bench.store.delete(blob_key(stored["sha256"]))
    assert retain() == (2, 3, 0, 0, 1)
    assert "the store and the rows do not agree" in caplog.text


def test_an_upload_of_the_same_bytes_during_the_sweep_keeps_them(bench, put, tmp_path) -> None:
    """The sweep is stopped after it has deleted the object and before it commits."""
    stored = put(b"race")
    age(bench, 2 * UNSETTLED_S)
    deleted, uploading, go_on = threading.Event(), threading.Event(), threading.Event()
    key = blob_key(stored["sha256"])

    class Slow(ObjectStore):
        def delete(self, key: str) -> None:
            super().delete(key)
            deleted.set()
            go_on.wait(60)

    def sweep() -> None:
        slow = Slow(bench.store._store)
        with bench.database.write() as session:
            assert delete_unreferenced(session, slow, walk_on(session, START)) == 1

    def upload() -> None:
        uploading.set()
        # Waits here for the sweep's lock.
        with bench.database.write() as session:
            touch(session, "default", **stored)
        (tmp_path / "again").write_bytes(b"race")
        bench.store.put_blob(tmp_path / "again")
        with bench.database.write() as session:
            uploads.create_dataset(session, filename="d", summary={}, **stored)

    threads = [threading.Thread(target=sweep), threading.Thread(target=upload)]
    threads[0].start()
    assert deleted.wait(60)
    threads[1].start()
    assert uploading.wait(60)
    threads[1].join(0.5)
    assert threads[1].is_alive()
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert bench.store.exists(key)
    age(bench, 2 * UNSETTLED_S)
    with bench.database.write() as session:
        assert delete_unreferenced(session, bench.store, walk_on(session, START)) == 0
    assert bench.store.exists(key)


def test_bytes_that_are_being_stored_again_are_not_deleted(bench, put) -> None:
    stored = put(b"being published")
    age(bench, UNSETTLED_S - 60)
    with bench.database.write() as session:
        assert delete_unreferenced(session, bench.store, walk_on(session, START)) == 0
    age(bench, 120)
    with bench.database.write() as session:
        touch(session, "default", **stored)
    with bench.database.write() as session:
        assert delete_unreferenced(session, bench.store, walk_on(session, START)) == 0
    assert bench.store.exists(blob_key(stored["sha256"]))


def test_what_has_ended_is_dropped_some_at_a_time_and_not_looked_at_again(
    bench, retain, put, monkeypatch
) -> None:
    monkeypatch.setattr(retention, "_JOBS_AT_ONCE", 2)
    terms = {"keep_uploads_s": None, "keep_artifacts_s": 400, "keep_events_s": 400}
    for ago_s in (900, 800, 700, 700, 500, 100):
        bench.add_job({})
        end(bench, ago_s=ago_s, state=JobState.SUCCEEDED, put=put)
    retain(**terms)
    assert (count(bench, Artifact), count(bench, Event)) == (1, 3)
    with bench.database.read() as session:
        tenant = session.get_one(Tenant, "default")
        expired_to = {tenant.artifacts_expired_to, tenant.events_expired_to}
        assert all(abs(now(session, -400) - at) < timedelta(seconds=60) for at in expired_to)
    # Nothing in between is asked for again; what ends later is.
    bench.add_job({})
    end(bench, ago_s=600, state=JobState.SUCCEEDED, put=put)
    retain(**terms)
    assert (count(bench, Artifact), count(bench, Event)) == (2, 6)
    retain(**terms | {"keep_events_s": 80})
    assert (count(bench, Artifact), count(bench, Event)) == (2, 3)


def test_the_sum_of_what_is_stored_is_never_too_low_and_is_put_right(bench, retain, put) -> None:
    def known() -> tuple[int, int]:
        with bench.database.read() as session:
            return stored_at_most(session, "default"), stored_bytes(session, "default")

    assert known() == (0, 0)
    # The same bytes twice, and bytes that nothing refers to.
    for content in (b"four", b"four", b"sixsix"):
        stored = put(content)
    with bench.database.write() as session:
        uploads.create_dataset(session, filename="d", summary={}, **stored)
    assert known() == (14, 6)
    retain()
    assert known() == (6, 6)
