"""A scripted HTTP server for faults that no healthy service shows, and a real API."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from jobstore.settings import Settings
from tests.api.conftest import prepare_database, wait_until
from tests.api.processes import is_up, log_of, serving
from tests.ports import free_ports

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
    return free_ports(1)[0]


@pytest.fixture(scope="session")
def api_url(tmp_path_factory: pytest.TempPathFactory, closed_port: int) -> Iterator[str]:
    """A running `python -m api` that knows the catalogue; no worker takes its jobs."""
    settings = Settings(
        home=tmp_path_factory.mktemp("api"),
        broker_url=f"redis://127.0.0.1:{closed_port}/0",
        max_dataset_bytes=1_000_000,
    )
    with serving_api(settings) as url:
        yield url


@contextmanager
def serving_api(settings: Settings, **changes: str) -> Iterator[str]:
    """Run an API that knows the catalogue; yields its URL."""
    prepare_database(settings)
    with serving(settings, cwd=ROOT, **changes) as (process, url):
        wait_until(lambda: is_up(url) or process.poll() is not None)
        assert process.poll() is None, log_of(settings).read_text()
        yield url
