"""No operation of the service reads more because more has ended: by PostgreSQL's own plans."""

from collections.abc import Iterator

import pytest

from benchmarks.filling import Size, fill
from benchmarks.operations import OPERATIONS, Ids
from benchmarks.plans import read_by
from jobstore import blobs, dialects
from jobstore.database import Database, make_engine
from jobstore.settings import Settings
from tests.conftest import new_database

# Enough that reading a table as a whole costs more than an index, and made within seconds.
SIZE = Size(4_000, events_per_job=2)
# What waits, a page, or what is dropped at once: all jobs and their events are many times that.
MOST_ROWS = 2_500


@pytest.fixture
def filled(postgres: str, migrated_database: str) -> Iterator[Database]:
    """A database with many ended jobs."""
    with new_database(postgres, migrated_database) as url:
        database = Database(make_engine(Settings(database_url=url)))
        assert fill(database, SIZE, minutes=5, leave_gb=0) == SIZE
        yield database
        database.engine.dispose()


def test_no_operation_reads_all_that_has_ended(filled: Database, monkeypatch) -> None:
    # So that this is a large table, and one step through the blobs is not all of them.
    monkeypatch.setattr(dialects, "ESTIMATED_FROM", 1000)
    monkeypatch.setattr(blobs, "_AT_ONCE", 50)
    with filled.read() as session:
        ids = Ids.find(session)
    reads = {name: read_by(filled, run, ids) for name, run in OPERATIONS.items()}
    assert {name: read.scans for name, read in reads.items() if read.scans} == {}
    assert {name: read.rows for name, read in reads.items() if read.rows > MOST_ROWS} == {}
