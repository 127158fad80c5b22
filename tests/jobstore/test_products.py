"""Products by key: a claim, a count, and what becomes of both."""

from datetime import timedelta
from pathlib import Path

from sqlalchemy import select, update

from jobstore import leases, products
from jobstore.blobs import UNSETTLED_S, delete_unreferenced, touch
from jobstore.database import Database
from jobstore.deletion import delete_job, drop
from jobstore.dialects import now
from jobstore.jobs import request_cancel
from jobstore.objects import ObjectStore, Stored
from jobstore.products import Made, MadeNow
from jobstore.settings import Settings
from jobstore.states import JobState
from jobstore.stocktaking import audit
from jobstore.tables import Blob, Product, ProductUse
from tests.jobstore.attempts import claim

KEY, STAGE = "a1" * 32, "robust_training"


def ask(database: Database, attempt: leases.Attempt) -> Made | MadeNow | None:
    with database.write() as session:
        return products.ask(session, attempt, KEY, STAGE)


def publish(database: Database, attempt: leases.Attempt, stored: Stored) -> None:
    with database.write() as session:
        products.publish(session, attempt, KEY, STAGE, stored, 12.5)


STORED = Stored("", "c" * 64, 7)


def test_one_makes_it_the_others_wait_and_then_take_it(database: Database, add_job) -> None:
    for _ in range(3):
        add_job()
    maker, second, third = (claim(database, str(n)) for n in range(3))
    assert ask(database, maker) is None
    assert ask(database, maker) is None  # it asks again, since an answer was lost
    assert ask(database, second) == MadeNow(maker.job_id)
    publish(database, maker, STORED)
    made = Made(STORED.sha256, maker.job_id, 12.5)
    assert [ask(database, each) for each in (second, third)] == [made, made]
    # Whoever was late changes nothing.
    publish(database, second, Stored("", "d" * 64, 8))
    assert ask(database, third) == made


def test_a_claim_ends_with_its_attempt_however_that_ends(database: Database, add_job) -> None:
    ends = []

    def cancelled(session, attempt) -> None:
        request_cancel(session, attempt.job_id)
        leases.finish(session, attempt, JobState.CANCELLED)

    ends = [
        cancelled,
        leases.release,
        lambda session, attempt: products.renounce(session, attempt, KEY),
    ]
    for end in ends:
        add_job()
        add_job()
        first, second = claim(database, "first"), claim(database, "second")
        assert ask(database, first) is None
        assert ask(database, second) == MadeNow(first.job_id)
        with database.write() as session:
            end(session, first)
        assert ask(database, second) is None
        with database.write() as session:
            products.renounce(session, second, KEY)
            leases.finish(session, second, JobState.CANCELLED)
            for row in session.scalars(select(Product)):
                session.delete(row)
            while leases.claim(session, "rest", lease_s=30):
                pass
    add_job()
    add_job()
    dead, heir = claim(database, "dead", lease_s=-1), claim(database, "heir")
    assert ask(database, dead) is None
    assert ask(database, heir) is None


def test_what_is_refused_counts_as_absent(database: Database, add_job) -> None:
    add_job()
    attempt = claim(database)
    assert ask(database, attempt) is None
    publish(database, attempt, STORED)
    with database.write() as session:
        products.refuse(session, attempt, KEY, "d" * 64)  # that one is another
    assert isinstance(ask(database, attempt), Made)
    with database.write() as session:
        products.refuse(session, attempt, KEY, STORED.sha256)
    assert ask(database, attempt) is None


def test_a_product_stays_while_a_job_is_left_that_has_it_and_no_longer_than_it_is_used(
    database: Database, settings: Settings, add_job, tmp_path: Path
) -> None:
    store = ObjectStore.from_settings(settings.model_copy(update={"store_url": tmp_path.as_uri()}))
    file = tmp_path / "file"
    file.write_bytes(b"weights")
    attempts = []
    stored = store.put_blob(file)
    with database.write() as session:
        touch(session, "default", stored.sha256, stored.bytes)
    for owner in ("first", "second"):
        add_job()
        attempts.append(claim(database, owner))
        if ask(database, attempts[-1]) is None:
            publish(database, attempts[-1], stored)
    with database.write() as session:
        for attempt in attempts:
            leases.finish(session, attempt, JobState.CANCELLED)

    def left() -> tuple[int, bool]:
        with database.write() as session:
            then = now(session) - timedelta(seconds=2 * UNSETTLED_S)
            session.execute(update(Blob).values(touched_at=then))
        with database.write() as session:
            delete_unreferenced(session, store, [("default", stored.sha256)])
            uses = len(session.scalars(select(ProductUse)).all())
        return uses, store.exists(stored.key)

    def delete(attempt: leases.Attempt) -> None:
        with database.write() as session:
            freed = delete_job(session, attempt.job_id)
        drop(database, store, freed)

    assert left() == (2, True)
    delete(attempts[0])
    assert left() == (1, True)
    with database.read() as session:
        found = audit(session, store, upload_lifetime_s=0)
    # The two uploads of the jobs have rows and no bytes here.
    assert (found.unreferenced, found.dangling) == (0, 2)
    with database.write() as session:
        assert not products.expire(session, "default", 3600, 10)
    assert left() == (1, True)
    with database.write() as session:
        products.expire(session, "default", -1, 10)
    assert left() == (0, False)


def test_with_the_last_job_a_product_goes(database: Database, add_job) -> None:
    add_job()
    attempt = claim(database)
    assert ask(database, attempt) is None
    publish(database, attempt, STORED)
    with database.write() as session:
        leases.finish(session, attempt, JobState.CANCELLED)
        freed = delete_job(session, attempt.job_id)
        assert ("default", STORED.sha256) in freed.blobs
        assert session.scalars(select(Product)).all() == []
