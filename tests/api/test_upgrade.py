"""An upgrade: the schema moves on under an API of the first revision, which notices nothing."""

import io
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import MetaData, text

from benchmarks.house import as_environment
from jobstore import jobs
from jobstore.database import Database, make_engine, migrate
from jobstore.settings import Settings
from tests.api.conftest import wait_until
from tests.api.processes import is_up, serving
from tests.conftest import new_database

ROOT = Path(__file__).parents[2]
SECOND_REVISION = "jobstore/migrations/versions/0002_accepted.py"
MIGRATE = """
from jobstore.database import make_engine, migrate
from jobstore.settings import Settings
migrate(make_engine(Settings()))
"""
MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def _git(*arguments: str) -> bytes:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True).stdout


@pytest.fixture(scope="module")
def first_version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code as it was with the first revision of the schema, out of the repository's history."""
    try:
        added = _git("log", "--format=%H", "--diff-filter=A", "--", SECOND_REVISION).split()
        archive = _git("archive", f"{added[-1].decode()}^", "api", "jobstore")
    except (OSError, subprocess.CalledProcessError, IndexError):
        pytest.skip("needs the repository's history, which this checkout does not have")
    folder = tmp_path_factory.mktemp("first")
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    return folder


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, tmp_path: Path, broker: str) -> Iterator[Settings]:
    if request.param == "sqlite":
        yield Settings(home=tmp_path, broker_url=broker)
        return
    with new_database(request.getfixturevalue("postgres")) as url:
        yield Settings(home=tmp_path, broker_url=broker, database_url=url)


def _rows() -> dict[str, list[dict[str, Any]]]:
    upload = {"filename": "a", "sha256": "a" * 64, "bytes": 1, "created_at": MOMENT}
    common = {
        "spec": {"method": "atmc"},
        "model_id": "mdl_1",
        "dataset_id": "dst_1",
        "progress": 0.0,
        "time_limit_s": 60.0,
        "run_seconds": 5.0,
        "created_at": MOMENT,
        "attempt": 1,
        "failed_attempts": 0,
        "max_attempts": 3,
        "last_event_seq": 1,
    }
    ended = {"finished_at": MOMENT, "k": 7, "clean_accuracy_after": 0.5}
    made = {
        "succeeded": ended,
        "queued": {"attempt": 0},
        "running": {"owner": "w", "lease_expires_at": MOMENT, "checkpoint_key": "c"},
        "failed": {"error_code": "x", "error_message": "y", "finished_at": MOMENT},
    }
    names = {name for row in made.values() for name in row}
    whole = [
        dict.fromkeys(names) | common | row | {"id": f"job_{state}", "state": state}
        for state, row in made.items()
    ]
    told = [
        {
            "job_id": row["id"],
            "seq": 1,
            "time": MOMENT,
            "type": "state",
            "attempt": 0,
            "data": {"state": "queued", "attempt": 0},
        }
        for row in whole
    ]
    model = {"id": "mdl_1", "format": "torch", "architecture": "lenet", **upload}
    dataset = {"id": "dst_1", "summary": {"arrays": {}}, **upload}
    return {"models": [model], "datasets": [dataset], "jobs": whole, "events": told}


@dataclass
class Reader:
    """Asks the old API again and again, and keeps every answer that differs from the first."""

    http: httpx.Client
    asked: int = 0
    differing: list[tuple[str, int, str]] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def read(self) -> None:
        paths = [f"/jobs/{row['id']}" for row in _rows()["jobs"]]
        paths += ["/jobs", "/jobs?state=running", "/jobs/job_running/events", "/models/mdl_1"]
        first = {path: self.http.get(path) for path in paths}
        assert all(answer.status_code == 200 for answer in first.values()), first
        while not self.done.is_set():
            for path in paths:
                answer = self.http.get(path)
                if answer.json() != first[path].json():
                    self.differing.append((path, answer.status_code, answer.text))
            self.asked += 1


def test_an_api_of_the_first_revision_reads_on_while_the_schema_moves(
    first_version: Path, settings: Settings
) -> None:
    migrating = [sys.executable, "-c", MIGRATE]
    environment = os.environ | as_environment(settings)
    subprocess.run(migrating, check=True, cwd=first_version, env=environment)
    database = Database(make_engine(settings))
    assert _revision(database) == "0001"
    tables = MetaData()
    tables.reflect(database.engine)
    with database.engine.begin() as connection:
        for name, rows in _rows().items():
            connection.execute(tables.tables[name].insert(), rows)

    with (
        serving(settings, cwd=first_version) as (_, url),
        httpx.Client(base_url=url, timeout=20) as http,
    ):
        wait_until(lambda: is_up(url))
        reader = Reader(http)
        thread = threading.Thread(target=reader.read)
        thread.start()
        wait_until(lambda: reader.asked >= 2)
        migrate(database.engine)
        before = reader.asked
        wait_until(lambda: reader.asked >= before + 3)
        reader.done.set()
        thread.join()
        assert reader.differing == []
        # And what it writes is legal in the new schema, too.
        assert http.post("/jobs/job_queued/cancel").status_code == 202
    with database.read() as session:
        kept = {row["id"]: jobs.get_job(session, row["id"]) for row in _rows()["jobs"]}
    assert kept["job_succeeded"].headline["k"] == 7
    assert kept["job_running"].checkpoint_keys == ["c"]
    assert kept["job_queued"].state == "cancelled"
    assert (kept["job_failed"].error_code, kept["job_failed"].retries) == ("x", 0)
    database.engine.dispose()


def _revision(database: Database) -> str:
    with database.engine.connect() as connection:
        return str(connection.scalar(text("SELECT version_num FROM alembic_version")))
