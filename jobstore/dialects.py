"""The only places where SQLite and PostgreSQL differ: clock, locks, upsert, connection set-up.

Row locks (`FOR UPDATE SKIP LOCKED`) are written once, for PostgreSQL. SQLite has none: there every
writing transaction begins with `BEGIN IMMEDIATE`, which admits one writer at a time.
"""

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from select import POLLIN, poll
from typing import Any

from psycopg import Cursor
from psycopg import Error as PostgresError
from psycopg.errors import IdleInTransactionSessionTimeout
from sqlalchemy import (
    Connection,
    DateTime,
    Dialect,
    Engine,
    bindparam,
    event,
    inspect,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DisconnectionError, OperationalError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import Float, TypeDecorator

READ_ONLY = "atmc_read_only"
"""Execution option: the transaction only reads, so on SQLite it takes no write lock."""

_BUSY_TIMEOUT_MS = 30_000
# "atmc" and the next: any numbers, the same in every process.
_MIGRATION_LOCK, _CLAIM_LOCK, _QUOTA_LOCKS = 0x61746D63, 0x61746D64, 0x61746D65
_SEALING_LOCK = 0x61746D66
# How long a transaction may ask nothing: of a claim, for which others wait, and of any other.
_CLAIM_PATIENCE_MS, _PATIENCE_MS, _LONG_PATIENCE_MS = 5_000, 15_000, 3_600_000


class UtcDateTime(TypeDecorator[datetime]):
    """A moment: aware, in UTC, on both databases. SQLite keeps it as text, without the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a naive time with ValueError: it would mean another moment on another host."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a time needs its zone: {value!r}")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the stored moment in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class clock(FunctionElement[datetime]):
    """The database's own time, plus `offset_s` seconds: hosts' clocks may disagree, this is one."""

    type = UtcDateTime()
    inherit_cache = True
    name = "clock"

    def __init__(self, offset_s: float = 0.0) -> None:
        super().__init__(bindparam("offset_s", offset_s, type_=Float(), unique=True))


def now(session: Session, offset_s: float = 0.0) -> datetime:
    """Return the database's own time, plus `offset_s` seconds."""
    return session.scalars(select(clock(offset_s))).one()


@compiles(clock, "postgresql")
def _postgresql_clock(element: clock, compiler: SQLCompiler, **kw: Any) -> str:
    # now() would be the time at which the transaction began.
    offset = compiler.process(element.clauses, **kw)
    return f"(clock_timestamp() + make_interval(secs => {offset}))"


@compiles(clock, "sqlite")
def _sqlite_clock(element: clock, compiler: SQLCompiler, **kw: Any) -> str:
    # The format SQLAlchemy writes, to the microsecond, so that times compare as text.
    offset = compiler.process(element.clauses, **kw)
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', {offset} || ' seconds')"


def reading(engine: Engine) -> Engine:
    """Return the same engine, for transactions that only read."""
    return engine.execution_options(**{READ_ONLY: True})


def set_up_sqlite(engine: Engine) -> None:
    """Make SQLite behave: WAL, foreign keys, patience with locks, transactions where we say."""

    @event.listens_for(engine, "connect")
    def _connected(connection: sqlite3.Connection, _record: object) -> None:
        # None: the driver begins nothing by itself; the listener below does.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA journal_mode = WAL")
        # What was answered is on the disk: NORMAL would lose the newest commits with the power.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if _only_reads(connection) else "BEGIN IMMEDIATE")


def set_up_postgresql(engine: Engine) -> None:
    """Set PostgreSQL up so that a reader sends its queries and nothing else.

    The engine is to be one with `AUTOCOMMIT`: the driver begins nothing by itself. A process that
    stops inside a transaction (paused, cut off) loses it after seconds: its locks would hold up
    the sweep and whoever took its job over.
    """

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: object) -> None:
        connection.execute(_patience(_PATIENCE_MS))
        connection.commit()

    @event.listens_for(engine, "handle_error")
    def _failed(context: ExceptionContext) -> BaseException | None:
        lost = context.original_exception
        if not isinstance(lost, IdleInTransactionSessionTimeout):
            return None
        # The error is turned into that of any lost connection, which callers handle already.
        return OperationalError(context.statement, context.parameters, lost)

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        if not _only_reads(connection):
            connection.exec_driver_sql("BEGIN")

    @event.listens_for(engine, "checkout")
    def _taken(connection: Any, _record: object, _proxy: object) -> None:
        # A server that ends or drops a connection says so on it. So only connections with unread
        # bytes are tested: a test of each would cost as much as most queries.
        if connection.closed or _has_unread(connection):
            try:
                engine.dialect.do_ping(connection)
            except PostgresError as error:
                # The others are looked at when they are taken.
                raise DisconnectionError from error


class BriefCursor(Cursor[Any]):
    """A cursor that describes a result by names and types, which is all that SQLAlchemy reads.

    psycopg makes an object of each column for every result; for a job's columns that takes twice as
    long as the query.
    """

    @property
    def description(self) -> list[Any] | None:
        """The columns by PEP 249: seven fields each, of which the last five are unknown."""
        result = self.pgresult
        if result is None or not result.nfields:
            return None
        names = [result.fname(column) or b"" for column in range(result.nfields)]
        rest = (None,) * 5
        return [(name.decode(), result.ftype(column), *rest) for column, name in enumerate(names)]


def _has_unread(connection: Any) -> bool:
    looked_at = poll()
    looked_at.register(connection.fileno(), POLLIN)
    return looked_at.poll(0) != []


def _only_reads(connection: Connection) -> bool:
    return bool(connection.get_execution_options().get(READ_ONLY, False))


def lock_migrations(connection: Connection) -> None:
    """Let one process at a time past this line until its transaction ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})


def lock_claims(session: Session) -> None:
    """Let one claim at a time past this line until its transaction ends.

    Each must count what the others took. A worker that stops in between loses its transaction
    sooner than others do.
    """
    if _is_postgresql(session):
        session.execute(text(_patience(_CLAIM_PATIENCE_MS, "LOCAL")))
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CLAIM_LOCK})


def lock_sealing(session: Session) -> None:
    """Let one sealer of the audit log at a time past this line until its transaction ends."""
    if _is_postgresql(session):
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SEALING_LOCK})


def expect_a_wait(session: Session) -> None:
    """Let this transaction stay idle for up to an hour, while something large is moved."""
    if _is_postgresql(session):
        session.execute(text(_patience(_LONG_PATIENCE_MS, "LOCAL")))


def _patience(milliseconds: int, scope: str = "SESSION") -> str:
    return f"SET {scope} idle_in_transaction_session_timeout = {milliseconds}"


def lock_quota(session: Session, tenant: str) -> None:
    """Let one transaction at a time that adds to what the tenant has past this line.

    The tenant's row is not the lock, because every claim writes it and this lock is held while a
    large file is stored.
    """
    if _is_postgresql(session):
        lock = text("SELECT pg_advisory_xact_lock(:kind, hashtext(:tenant))")
        session.execute(lock, {"kind": _QUOTA_LOCKS, "tenant": tenant})


def upsert(session: Session, mapped: type[Any], row: dict[str, Any]) -> None:
    """Insert `row`, or update its columns where the primary key exists."""
    insert = _insert(session)(mapped).values(row)
    names = list(inspect(mapped).primary_key)
    session.execute(insert.on_conflict_do_update(index_elements=names, set_=row))


def insert_if_absent(session: Session, mapped: type[Any], row: dict[str, Any]) -> None:
    """Insert `row`, or leave alone what is there under its primary key."""
    session.execute(_insert(session)(mapped).values(row).on_conflict_do_nothing())


def add_up(
    session: Session, mapped: type[Any], rows: Sequence[dict[str, Any]], column: str
) -> None:
    """Insert the rows; where a primary key exists, add to its `column` instead."""
    insert = _insert(session)(mapped).values(list(rows))
    total = {column: getattr(mapped, column) + insert.excluded[column]}
    names = list(inspect(mapped).primary_key)
    session.execute(insert.on_conflict_do_update(index_elements=names, set_=total))


def _insert(session: Session) -> Any:
    return postgresql.insert if _is_postgresql(session) else sqlite.insert


def _is_postgresql(session: Session) -> bool:
    return session.get_bind().dialect.name == "postgresql"
