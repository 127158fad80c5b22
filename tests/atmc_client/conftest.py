"""A scripted HTTP server for faults that no healthy service shows, a real API, and `atmc` on it."""

import io
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from atmc_client.cli import main
from atmc_core.networks.architectures import build
from jobstore.database import Database, make_engine
from jobstore.settings import Settings
from tests.api.conftest import prepare_database, wait_until
from tests.api.processes import is_up, log_of, serving
from tests.api.web import Web, serving_web
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
    wrap: Callable[[ssl.SSLContext], None] = lambda context: None
    """Has it speak TLS from then on."""


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

        do_GET = do_POST = do_PATCH = do_DELETE = do

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_port}"

    def wrap(context: ssl.SSLContext) -> None:
        http.socket = context.wrap_socket(http.socket, server_side=True)

    server.wrap = wrap
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture
def new_files(tmp_path: Path) -> Path:
    """A folder with `model.safetensors`, a digits network, and `data.npz`, that nobody has sent."""
    torch.seed()
    save_file(build("digits_cnn", 10).state_dict(), tmp_path / "model.safetensors")
    images = torch.randint(0, 256, (20, 8, 8), dtype=torch.uint8).numpy()
    labels = np.arange(20) % 10
    np.savez(tmp_path / "data.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    return tmp_path


@pytest.fixture(scope="session")
def closed_port() -> int:
    """A port on which nobody listens."""
    return free_ports(1)[0]


@pytest.fixture(scope="session")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """A web server, whose files the API below may fetch."""
    with serving_web(tmp_path_factory.mktemp("web")) as web:
        yield web


@pytest.fixture(scope="session")
def api_settings(tmp_path_factory: pytest.TempPathFactory, closed_port: int, web: Web) -> Settings:
    """Those of the API below. It is allowed to put results to a bucket, which is away."""
    home = tmp_path_factory.mktemp("api")
    (home / "connections.toml").write_text(
        f"""
        [web]
        tenants = ["default"]
        read = ["{web.url}/"]
        networks = ["127.0.0.0/8"]
        ca_file = "{web.authority}"
        [lake]
        tenants = ["default"]
        write = ["s3://results/"]
        endpoint = "http://127.0.0.1:{closed_port}"
        credentials = "anonymous"
        """
    )
    return Settings(
        home=home,
        broker_url=f"redis://127.0.0.1:{closed_port}/0",
        max_dataset_bytes=1_000_000,
        connections=home / "connections.toml",
    )


@pytest.fixture(scope="session")
def api_url(api_settings: Settings) -> Iterator[str]:
    """A running `python -m api` that knows the catalogue; no worker takes its jobs."""
    with serving_api(api_settings) as url:
        yield url


@pytest.fixture
def database(api_settings: Settings, api_url: str) -> Iterator[Database]:
    """The API's database, for what a worker or the keeper would write."""
    database = Database(make_engine(api_settings))
    yield database
    database.engine.dispose()


@contextmanager
def serving_api(settings: Settings, **changes: str) -> Iterator[str]:
    """Run an API that knows the catalogue; yields its URL."""
    prepare_database(settings)
    with serving(settings, cwd=ROOT, **changes) as (process, url):
        wait_until(lambda: is_up(url) or process.poll() is not None)
        assert process.poll() is None, log_of(settings).read_text()
        yield url


Done = subprocess.CompletedProcess[str]

# What becomes another program cannot run in this process.
BECOMING = ("inspect", "serve")


def in_a_process(
    *arguments: object, stdin: str | None = None, environment: dict[str, str] | None = None
) -> Done:
    """Run `atmc` as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "atmc_client", *map(str, arguments)],
        cwd=ROOT,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | (environment or {}),
    )


def in_this_process(
    *arguments: object, stdin: str | None = None, environment: dict[str, str] | None = None
) -> Done:
    """Run `atmc` without the start of an interpreter, which costs more than the command."""
    streams = {
        "stdin": io.TextIOWrapper(io.BytesIO((stdin or "").encode())),
        "stdout": io.TextIOWrapper(io.BytesIO(), write_through=True),
        "stderr": io.TextIOWrapper(io.BytesIO(), write_through=True),
    }
    code: object = 0
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (environment or {}).items():
            patch.setenv(name, value)
        for name, stream in streams.items():
            patch.setattr(sys, name, stream)
        patch.setattr(sys, "argv", ["atmc", *map(str, arguments)])
        try:
            main()
        except SystemExit as ended:
            code = ended.code
    assert isinstance(code, int)
    said = [streams[name].buffer.getvalue().decode() for name in ("stdout", "stderr")]  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(arguments, code, *said)


@pytest.fixture
def atmc(api_url: str) -> Callable[..., Done]:
    """Runs a command; returns its exit code, output and errors."""

    def run(*arguments: object, server: str | None = api_url, **more: object) -> Done:
        how = in_a_process if arguments[0] in BECOMING else in_this_process
        return how(*(("--server", server) if server else ()), *arguments, **more)  # type: ignore[arg-type]

    return run
