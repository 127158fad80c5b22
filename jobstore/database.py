"""The engine, the migrations, and the two kinds of transaction."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from functools import partial
from pathlib import Path
from typing import TypeVar

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, make_url
from sqlalchemy.orm import Session, sessionmaker

from jobstore import tenancy
from jobstore.dialects import (
    BriefCursor,
    lock_migrations,
    reading,
    set_up_postgresql,
    set_up_sqlite,
)
from jobstore.settings import Settings
from jobstore.tables import Base

Row = TypeVar("Row", bound=Base)

# An API process opens as many connections as it has threads, as they are needed. Those past the
# pool's size are closed after each use, and opening one costs more than most requests.
_CONNECTIONS = {"pool_size": 20, "max_overflow": 20}
# A server that fell silent must be noticed well within a lease; libpq would wait for hours.
_POSTGRESQL_PATIENCE = {"connect_timeout": 5, "tcp_user_timeout": 10_000}


def make_engine(settings: Settings) -> Engine:
    """Return the process's one engine for `settings.database_url` (SQLite or PostgreSQL).

    For a SQLite file its folder is made. Raises ValueError for any other database.
    """
    url = make_url(settings.database_url)
    common = {
        # The standard library would write NaN, which no JSON column takes.
        "json_serializer": partial(json.dumps, allow_nan=False),
        # A statement that fails is logged, and its parameters are secrets and what callers sent.
        "hide_parameters": True,
    }
    backend = url.get_backend_name()
    if backend == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
        engine = create_engine(
            url,
            isolation_level="AUTOCOMMIT",
            connect_args=_POSTGRESQL_PATIENCE | {"cursor_factory": BriefCursor},
            **common,
            **_CONNECTIONS,
        )
        set_up_postgresql(engine)
        return engine
    if backend == "sqlite":
        if url.database:
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(url, **common)
        set_up_sqlite(engine)
        return engine
    raise ValueError(f"ATMC_DATABASE_URL: {backend!r} is not one of postgresql, sqlite")


def migrate(engine: Engine, revision: str = "head") -> None:
    """Bring the tables up to `revision` (the newest); several processes may do so at once."""
    with engine.begin() as connection:
        lock_migrations(connection)
        config = Config()
        config.set_main_option("script_location", "jobstore:migrations")
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


class Database:
    """Opens transactions: `with database.write() as session: ...`.

    Each is committed at the end of its block and rolled back by an exception. What the repository
    functions return stays readable afterwards. Send a wake-up after the block, never inside.
    """

    def __init__(self, engine: Engine, tenant: str | None = None) -> None:
        self.engine = engine
        self.tenant = tenant
        self.origin: tenancy.Origin | None = None
        self._write = sessionmaker(engine, expire_on_commit=False)
        self._reading = reading(engine)
        self._read = sessionmaker(self._reading, expire_on_commit=False)

    def of(self, tenant: str | None, origin: tenancy.Origin | None = None) -> "Database":
        """Return the part of the database that is the tenant's: see `jobstore.tenancy`.

        None is the whole. `origin` is who acts in it, for the records of `jobstore.audit`.
        """
        part = copy(self)  # makers and all: to make them takes longer than a read
        part.tenant, part.origin = tenant, origin
        return part

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that only reads: on SQLite it never waits for a writer.

        On PostgreSQL each query is its own: it sees what is committed by then, as it would inside
        a transaction of the default level, and two round trips fewer are made.
        """
        with self._read() as session:
            self._bind(session)
            yield session

    @contextmanager
    def look_up(self) -> Iterator[Connection]:
        """Open a connection for a query on tables that names its tenant itself; half as costly."""
        with self._reading.connect() as connection:
            yield connection

    def find(self, mapped: type[Row], row_id: str) -> Row | None:
        """Return a copy of the tenant's row of that id: `read` for one row, at half the cost."""
        assert self.tenant is not None, "a part of the database is asked, not the whole"
        asked = {"id": row_id, "tenant": self.tenant}
        with self.look_up() as connection:
            found = connection.execute(tenancy.own_row(mapped), asked).one_or_none()
        return None if found is None else mapped(**found._mapping)

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that may write: on SQLite one at a time, others wait up to 30 seconds."""
        with self._write.begin() as session:
            self._bind(session)
            yield session

    def _bind(self, session: Session) -> None:
        if self.tenant is not None:
            tenancy.bind(session, self.tenant)
        if self.origin is not None:
            tenancy.bind_origin(session, self.origin)
