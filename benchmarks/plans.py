"""What PostgreSQL reads for an operation of the service."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import event, text
from sqlalchemy.orm import Session

from jobstore.database import Database

T = TypeVar("T")

_EXPLAIN = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "
_READ = text(
    "SELECT relname, seq_tup_read, coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables"
)


@dataclass
class Read:
    """What was read.

    Attributes:
        rows: the rows and index entries that were looked at, those of triggers included.
        buffers: the pages of 8 KiB that the plans touch.
        scans: the tables that are read as a whole, though they have over a thousand rows.
        plans: the statements' plans.
    """

    rows: int = 0
    buffers: int = 0
    scans: list[str] = field(default_factory=list)
    plans: list[Any] = field(default_factory=list)


def read_by(database: Database, operation: Callable[[Session, T], object], what: T) -> Read:
    """Run the operation, explaining each of its statements right before it; undo all of it."""
    read = Read()
    with database.write() as session:
        with _explained(session, read):
            operation(session, what)
            session.flush()
        session.rollback()
    # Once more without the explanations, each of which has run its statement, too.
    with database.write() as session:
        before = _counted(session)
        operation(session, what)
        session.flush()
        after = _counted(session)
        session.rollback()
    fetched = sum(sum(counts) for counts in after.values())
    fetched -= sum(sum(counts) for counts in before.values())
    # The statistics know of triggers, the plans of entries that an index alone could answer.
    read.rows = max(fetched, sum(_passed(plan) for plan in read.plans))
    read.scans = sorted({name for plan in read.plans for name in _scanned(plan)})
    return read


def _counted(session: Session) -> dict[str, list[int]]:
    return {name: [scanned, fetched] for name, scanned, fetched in session.execute(_READ)}


@contextmanager
def _explained(session: Session, read: Read) -> Iterator[None]:
    connection = session.connection()
    busy = False

    def explain(_connection: Any, cursor: Any, statement: str, parameters: Any, *_: object) -> None:
        nonlocal busy
        if busy or not statement.lstrip().upper().startswith(_EXPLAINABLE):
            return
        busy = True
        own = cursor.connection.cursor()
        own.execute("SAVEPOINT explained")
        own.execute(_EXPLAIN + statement, parameters or None)
        (found,) = own.fetchone()
        own.execute("ROLLBACK TO SAVEPOINT explained")
        document = found if isinstance(found, list) else json.loads(found)
        plan = document[0]["Plan"]
        read.plans.append(plan)
        read.buffers += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
        busy = False

    event.listen(connection, "before_cursor_execute", explain)
    yield
    event.remove(connection, "before_cursor_execute", explain)


_EXPLAINABLE = ("SELECT", "UPDATE", "INSERT", "DELETE", "WITH")


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for each in plan.get("Plans", ()):
        yield from _nodes(each)


def _scanned(plan: dict[str, Any]) -> Iterator[str]:
    for node in _nodes(plan):
        passed = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
        if node["Node Type"] == "Seq Scan" and passed > _FEW:
            yield node["Relation Name"]
        # An index that is gone through from end to end is no better.
        elif node["Node Type"] == "Index Only Scan" and "Index Cond" not in node and passed > _FEW:
            yield f"{node['Relation Name']} ({node['Index Name']})"


_FEW = 1000


def _passed(plan: dict[str, Any]) -> int:
    """The rows and entries that the plan's scans have gone through."""
    return sum(
        int(node["Actual Loops"]) * int(node["Actual Rows"] + node.get("Rows Removed by Filter", 0))
        for node in _nodes(plan)
        if "Scan" in node["Node Type"]
    )
