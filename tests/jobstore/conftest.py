"""Real servers: every test of the store runs on SQLite and on PostgreSQL, on a folder and on S3."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from jobstore import jobs, uploads
from jobstore.database import Database
from jobstore.objects import ObjectStore
from jobstore.settings import Settings
from jobstore.tables import Job
from tests.conftest import new_database
from tests.ports import free_ports

AddJob = Callable[..., Job]


@pytest.fixture(params=["sqlite", "postgresql"])
def dialect(request: pytest.FixtureRequest) -> str:
    """The database that the test runs on."""
    return str(request.param)


@pytest.fixture
def empty_settings(
    request: pytest.FixtureRequest, dialect: str, tmp_path: Path
) -> Iterator[Settings]:
    """Settings that name a new database without a schema."""
    if dialect == "sqlite":
        yield Settings(home=tmp_path)
        return
    with new_database(request.getfixturevalue("postgres")) as url:
        yield Settings(home=tmp_path, database_url=url)


@pytest.fixture
def settings(request: pytest.FixtureRequest, dialect: str, tmp_path: Path) -> Iterator[Settings]:
    """Settings that name a new database with the newest schema."""
    if dialect == "sqlite":
        shutil.copy(request.getfixturevalue("migrated_file"), tmp_path / "atmc.db")
        yield Settings(home=tmp_path)
        return
    template = request.getfixturevalue("migrated_database")
    with new_database(request.getfixturevalue("postgres"), template) as url:
        yield Settings(home=tmp_path, database_url=url)


@pytest.fixture
def add_job(database: Database) -> AddJob:
    """Queues a job on a model and a data set of its own."""

    def add(**changes: object) -> Job:
        with database.write() as session:
            model = uploads.create_model(
                session,
                filename="lenet.safetensors",
                format="safetensors",
                architecture="lenet",
                normalization=None,
                summary={"dimensions": {"num_classes": 10}, "dense_weights": 1000},
                sha256="a" * 64,
                bytes=10,
            )
            dataset = uploads.create_dataset(
                session, filename="digits.npz", summary={"train": 3}, sha256="b" * 64, bytes=20
            )
            arguments = {
                "spec": {"method": "atmc"},
                "model": model,
                "dataset": dataset,
                "max_attempts": 3,
                "time_limit_s": 60.0,
            }
            return jobs.create_job(session, **(arguments | changes))

    return add


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """An empty object store."""
    if request.param == "folder":
        return ObjectStore.from_settings(Settings(home=tmp_path))
    s3 = request.getfixturevalue("s3")
    return ObjectStore.from_settings(
        Settings(**s3 | {"store_url": f"s3://atmc/{uuid4().hex}"}, home=tmp_path)
    )


@pytest.fixture
def free_port() -> int:
    """A port nobody listens on."""
    return free_ports(1)[0]
