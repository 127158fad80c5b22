"""Who carries what, and what becomes of it when whoever carried it is gone."""

import pytest
from sqlalchemy import update

from jobstore import transfers, uploads
from jobstore.database import Database
from jobstore.dialects import clock
from jobstore.errors import LeaseLost
from jobstore.states import FileState
from jobstore.tables import Dataset, Transfer

URI = "s3://lake/digits.npz"


@pytest.fixture
def fetched(database: Database) -> str:
    """The id of a data set that is to be fetched."""
    with database.write() as session:
        row = uploads.create_dataset(
            session, filename="digits.npz", summary={}, sha256="", bytes=0, source={"uri": URI}
        )
        transfers.begin(session, row, {"uri": URI}, bytes=20)
        return row.id


def claim(database: Database) -> list[transfers.Carried]:
    with database.write() as session:
        return transfers.claim(session, [], 4)


def test_what_a_killed_process_was_at_another_one_begins_anew(
    database: Database, fetched: str
) -> None:
    (first,) = claim(database)
    with database.write() as session:
        transfers.renew(session, first, came=10)
    # It is held, so nobody else is at it.
    assert claim(database) == []
    with database.write() as session:
        session.execute(update(Transfer).values(due_at=clock()))
    (second,) = claim(database)
    assert (second.id, second.number) == (fetched, 2)
    # Whoever comes back writes nothing.
    for act in (transfers.renew, transfers.done):
        with pytest.raises(LeaseLost), database.write() as session:
            act(session, first)
    with database.write() as session:
        transfers.renew(session, second, came=5)
        source = session.get_one(Dataset, fetched).source
        assert source is not None
        assert source["fetched_bytes"] == 5


def test_what_may_pass_is_tried_again_and_given_up_in_the_end(
    database: Database, fetched: str
) -> None:
    for number in range(1, len(transfers.RETRY_AFTER_S) + 2):
        with database.write() as session:
            session.execute(update(Transfer).values(due_at=clock()))
        (carried,) = claim(database)
        with database.write() as session:
            gives_up = transfers.put_off(session, carried, "source_away", "away", passes=True)
        assert gives_up == (number > len(transfers.RETRY_AFTER_S))
        with database.read() as session:
            row = session.get_one(Dataset, fetched)
            assert row.state == (FileState.FAILED if gives_up else FileState.FETCHING)
            assert row.source is not None
            assert row.source["tries"] == number
    assert claim(database) == []
