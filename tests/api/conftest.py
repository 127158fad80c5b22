"""The API on real parts: a uvicorn server, a SQLite file, a folder store, a Valkey server."""

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
import uvicorn
from pydantic import SecretStr

from api.app import create_app
from api.connections import Connection
from api.services import Services
from atmc_core.job.catalogue import catalogue
from jobstore import catalogue as published
from jobstore import leases
from jobstore.blobs import touch
from jobstore.database import Database, make_engine, migrate
from jobstore.settings import Settings
from jobstore.states import JobState
from jobstore.tables import DEFAULT_TENANT
from keeper.trials import Conductor
from launcher.broker import prepare_broker
from tests.api import files
from tests.conftest import COLUMNS, EMBEDDED, name_of, new_database, production

ADMIN_KEY = "the-first-admin-of-the-tests"


@dataclass
class Service:
    """A running API, and what stands behind it."""

    http: httpx.Client
    settings: Settings
    services: Services

    def keyed(self, key: str) -> "Service":
        """The same API, called with a key."""
        headers = {"Authorization": f"Bearer {key}"}
        http = httpx.Client(base_url=self.http.base_url, timeout=20, headers=headers)
        return Service(http, self.settings, self.services)

    def new_tenant(self, tenant: str, *scopes: str) -> "Service":
        """The same API, called with a new key of the tenant; this one's must be an admin's."""
        new = {"tenant": tenant, "scopes": scopes or ["jobs:read", "jobs:write"]}
        made = self.http.post("/keys", json=new)
        assert made.status_code == 201, made.text
        return self.keyed(made.json()["key"])

    @property
    def database(self) -> Database:
        return self.services.database

    def stored_files(self) -> list[str]:
        """The keys of all objects in the store; of a folder also what is only half written."""
        root = self.settings.home / "objects"
        if not root.exists():
            return self.services.store.keys()
        return [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]

    def send_model(self, content: bytes | None = None, **fields: str) -> httpx.Response:
        content = files.safetensors_file() if content is None else content
        data = {"architecture": files.ARCHITECTURE, **fields}
        return self.http.post("/models", files={"file": ("m.safetensors", content)}, data=data)

    def send_dataset(self, content: bytes | None = None) -> httpx.Response:
        content = files.npz_file() if content is None else content
        return self.http.post("/datasets", files={"file": ("d.npz", content)})

    def send_job(self, spec: dict[str, Any] | None = None, **changes: Any) -> httpx.Response:
        """Post a job by ids, on files that fit; `changes` go over the body."""
        ids = {
            "model_id": self.send_model().json()["id"],
            "dataset_id": self.send_dataset().json()["id"],
        }
        return self.http.post("/jobs", json=ids | (spec or files.SPEC) | changes)

    def send_whole_job(
        self,
        model: bytes | None = None,
        dataset: bytes | None = None,
        spec: Any = None,
        **headers: str,
    ) -> httpx.Response:
        """Post a job with its files in one request."""
        spec = {"architecture": files.ARCHITECTURE, **files.SPEC} if spec is None else spec
        parts = {
            "spec": (None, json.dumps(spec), "application/json"),
            "model": ("m.safetensors", files.safetensors_file() if model is None else model),
            "dataset": ("d.npz", files.npz_file() if dataset is None else dataset),
        }
        return self.http.post("/jobs", files=parts, headers=headers)


def wait_until(condition: Callable[[], object], timeout_s: float = 60) -> None:
    """Poll for a state; fails after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Valkey server."""
    server = prepare_broker(tmp_path_factory.mktemp("valkey"))
    process = subprocess.Popen(server.command, stdout=subprocess.DEVNULL)
    with redis.Redis.from_url(server.url) as client:
        wait_until(lambda: _answers(client))
    yield server.url
    process.terminate()
    process.wait()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, as it is after a worker's start."""
    settings = Settings(home=tmp_path_factory.mktemp("template"))
    prepare_database(settings)
    return settings.home / "atmc.db"


@pytest.fixture(scope="session")
def template_database(postgres: str) -> Iterator[str]:
    """The name of a PostgreSQL database that is as the file is."""
    with new_database(postgres) as url:
        prepare_database(Settings(database_url=url))
        yield name_of(url)


def prepare_database(settings: Settings) -> None:
    """Make the tables and publish the catalogue."""
    engine = make_engine(settings)
    migrate(engine)
    with Database(engine).write() as session:
        published.publish(session, catalogue())
    engine.dispose()


def settings_in(home: Path, template: Path, broker: str) -> Settings:
    """Settings of a service with a catalogue, and with limits that a test can pass."""
    home.mkdir()
    shutil.copy(template, home / "atmc.db")
    return Settings(
        home=home,
        broker_url=broker,
        max_model_bytes=1_000_000,
        max_dataset_bytes=1_000_000,
        max_inflated_bytes=2_000_000,
        # A test's clients take turns with the service at one interpreter, so that they wait for it
        # long: none is turned away unless all of these threads are at work.
        api_threads=40,
    )


@pytest.fixture(params=COLUMNS)
def column(request: pytest.FixtureRequest) -> str:
    """Which servers the test runs on."""
    return str(request.param)


@pytest.fixture
def settings(
    request: pytest.FixtureRequest, column: str, tmp_path: Path, template: Path, broker: str
) -> Iterator[Settings]:
    """Settings of a service of its own for the test."""
    settings = settings_in(tmp_path / "data", template, broker)
    if column == EMBEDDED:
        yield settings
        return
    servers = map(request.getfixturevalue, ("postgres", "s3", "template_database"))
    with production(*servers) as urls:
        yield Settings(**settings.model_dump() | urls)


@pytest.fixture
def service(settings: Settings) -> Iterator[Service]:
    """A running API of its own for the test."""
    yield from running(settings)


@pytest.fixture
def admin(settings: Settings) -> Iterator[Service]:
    """A running API that asks for keys, called with the first admin's."""
    settings.admin_key = SecretStr(ADMIN_KEY)
    for service in running(settings):
        yield service.keyed(ADMIN_KEY)


@pytest.fixture
def service_on_postgres(
    tmp_path: Path, template: Path, broker: str, postgres: str, template_database: str
) -> Iterator[Service]:
    """A running API on a PostgreSQL server, where writers do not wait for each other."""
    with new_database(postgres, template_database) as url:
        settings = settings_in(tmp_path / "data", template, broker)
        settings.database_url = url
        yield from running(settings)


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory, template: Path, broker: str
) -> Iterator[Service]:
    """One running API for those tests of a module that leave nothing behind."""
    yield from running(settings_in(tmp_path_factory.mktemp("shared") / "data", template, broker))


def running(settings: Settings) -> Iterator[Service]:
    """Serve on a free port until the generator is closed."""
    app = create_app(settings)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=Connection,
            log_level="warning",
            timeout_graceful_shutdown=1,
            proxy_headers=False,
        )
    )
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        wait_until(lambda: server.started)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with httpx.Client(base_url=url, timeout=20) as client:
            yield Service(client, settings, app.state.services)
        server.should_exit = True
        thread.join()


HEADLINE: dict[str, float | int] = {
    "clean_accuracy_before": 0.98,
    "clean_accuracy_after": 0.97,
    "fgsm_accuracy_before": 0.9,
    "fgsm_accuracy_after": 0.88,
    "pgd_accuracy_before": 0.85,
    "pgd_accuracy_after": 0.83,
    "robust_accuracy_before": 0.84,
    "robust_accuracy_after": 0.8175,
    "k": 5181,
    "nonzeros": 5000,
    "nonzeros_u": 100,
    "nonzeros_v": 4000,
    "nonzeros_c": 900,
    "bits": 4,
    "max_distinct_values": 16,
    "dense_bytes": 208_376,
    "file_bytes": 10_420,
    "file_ratio": 0.05,
    "nominal_ratio": 0.0125,
    "seconds": 3725.0,
    "accepted": True,
}
# The API passes both on as they are: what is in them is the method's.
REPORT: dict[str, Any] = {"version": 1, "headline": HEADLINE}
PAGE = "<!doctype html><script>alert(1)</script><p>à la carte".encode()
ARTIFACT = bytes(range(256)) * 40


@pytest.fixture
def finished(service: Service) -> dict[str, Any]:
    """A job that succeeded, with an artifact `model.atmc` and a report in both forms."""
    return finished_job(service)


def finished_job(service: Service, tenant: str = DEFAULT_TENANT, **changes: Any) -> dict[str, Any]:
    """Have the only job of the service succeed, with all that a job leaves."""
    store = service.services.store.of(tenant)
    job = service.send_job(name="<b>bold</b>", **changes).json()
    report = json.dumps(REPORT).encode()
    results = {
        "model.atmc": ("application/octet-stream", ARTIFACT),
        "report.html": ("text/html; charset=utf-8", PAGE),
        "report.json": ("application/json", report),
    }
    artifacts = []
    for name, (media_type, content) in results.items():
        path = service.settings.home / name
        path.write_bytes(content)
        blob = store.put_blob(path)
        with service.database.write() as session:
            touch(session, tenant, blob.sha256, blob.bytes)
        artifacts.append(leases.NewArtifact(name, media_type, blob.sha256, blob.bytes))
    attempt = claimed(service)
    with service.database.write() as session:
        leases.finish(session, attempt, JobState.SUCCEEDED, headline=HEADLINE, artifacts=artifacts)
    done: dict[str, Any] = service.http.get(job["links"]["self"]).json()
    return done


def begun_sweep(service: Service, **more: Any) -> dict[str, Any]:
    """Begin a sweep of two trials, of which the keeper has made the first a job."""
    body = {
        "model_id": service.send_model().json()["id"],
        "dataset_id": service.send_dataset().json()["id"],
        "spec": files.SPEC,
        "grid": {"bits": [8, 4]},
        **more,
    }
    made = service.http.post("/sweeps", json=body)
    assert made.status_code == 202, made.text
    conduct(service)
    sweep: dict[str, Any] = made.json()
    return sweep


def conduct(service: Service) -> None:
    """Take the next step of every sweep, as the keeper does."""
    services = service.services
    stop = threading.Event()
    Conductor(service.settings, service.database, services.celery, stop).advance_all()


def claimed(service: Service) -> leases.Attempt:
    """Claim the oldest queued job, as a worker does."""
    with service.database.write() as session:
        claim = leases.claim(session, "tester", lease_s=60)
    assert claim is not None
    return claim[1]


def assert_problem(
    response: httpx.Response, status: int, code: str, param: str | None = ...
) -> str:
    """Assert that the answer is this problem document; returns its detail."""
    document = response.json()
    assert (response.status_code, document["code"]) == (status, code), response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    assert set(document) == {"type", "title", "status", "detail", "code", "param"}
    assert document["status"] == status
    assert document["type"] == f"urn:atmc:problem:{code}"
    if param is not ...:
        assert document["param"] == param
    return document["detail"]
