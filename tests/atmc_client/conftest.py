"""A scripted HTTP server for faults that no healthy service shows, and a real API."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from atmc_core.catalogue import catalogue
from jobstore.catalogue import publish
from jobstore.database import Database, make_engine, migrate
from jobstore.settings import Settings

ROOT = Path(__file__).parents[2]


@dataclass
class Seen:
    """A request as the scripted server got it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class ScriptedServer:
    """Answers requests with the `script`'s functions, in order; the last one answers the rest."""

    script: list[Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    """A server on a port of its own; fill its `script`, read what it has `seen`."""
    server = ScriptedServer()

    class Handler(BaseHTTPRequestHandler):
        def do(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            server.seen.append(Seen(self.command, self.path, dict(self.headers.items()), body))
            step = min(len(server.seen), len(server.script)) - 1
            server.script[step](self)

        do_GET = do_POST = do

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture(scope="session")
def closed_port() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture(scope="session")
def api_url(tmp_path_factory: pytest.TempPathFactory, closed_port: int) -> Iterator[str]:
    """A running `python -m api` that knows the catalogue; no worker takes its jobs."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    folder = tmp_path_factory.mktemp("api")
    broker = f"redis://127.0.0.1:{closed_port}/0"
    settings = Settings(home=folder, port=port, broker_url=broker)
    engine = make_engine(settings)
    migrate(engine)
    with Database(engine).write() as session:
        publish(session, catalogue())
    engine.dispose()
    environment = os.environ | {
        "ATMC_HOME": str(folder),
        "ATMC_PORT": str(port),
        "ATMC_BROKER_URL": broker,
        "ATMC_MAX_DATASET_BYTES": "1000000",
    }
    with (folder / "api.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "api"], cwd=ROOT, env=environment, stdout=log, stderr=log
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_up(url, process, folder / "api.log")
        yield url
    finally:
        process.terminate()
        process.wait(timeout=20)


def _wait_until_up(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            httpx.get(f"{url}/healthz", trust_env=False).raise_for_status()
            return
        except httpx.TransportError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
