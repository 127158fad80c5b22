"""A rolling deploy under load: API processes are replaced, and no caller notices."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from jobstore.database import Database, make_engine
from jobstore.settings import Settings
from jobstore.tables import Job, Model
from tests.api import files
from tests.api.conftest import wait_until
from tests.api.processes import is_up, serving

DRAIN_S, FINISH_S = 1.0, 20.0
LEAVING = {"ATMC_DRAIN_S": str(DRAIN_S), "ATMC_FINISH_S": str(FINISH_S)}


@dataclass
class Balancer:
    """Leads each request to the next process that says it is ready, as a Service's endpoints do.

    A connection that is refused is tried at the next one; nothing else is ever tried again.
    """

    ready: list[str] = field(default_factory=list)
    turns: Iterator[int] = field(default_factory=itertools.count)

    def look(self, urls: list[str], client: httpx.Client) -> None:
        """Ask all whether they are ready."""
        self.ready = [url for url in urls if _is_ready(url, client)]

    def send(self, client: httpx.Client, method: str, path: str, **more: Any) -> httpx.Response:
        deadline = time.monotonic() + 30
        while True:
            ready = self.ready
            try:
                return client.request(method, ready[next(self.turns) % len(ready)] + path, **more)
            except (httpx.ConnectError, ZeroDivisionError):
                assert time.monotonic() < deadline, "nobody was ready"
                time.sleep(0.02)


def _is_ready(url: str, client: httpx.Client) -> bool:
    try:
        return client.get(f"{url}/readyz", timeout=5).is_success
    except httpx.TransportError:
        return False


def trickle(content: bytes, seconds: float) -> Iterator[bytes]:
    """Yield the content so slowly that it takes so long."""
    for piece in range(20):
        time.sleep(seconds / 20)
        yield content[piece * len(content) // 20 : (piece + 1) * len(content) // 20]


def in_parts(content: bytes) -> tuple[bytes, str]:
    """A multipart body with a model, and its content type."""
    request = httpx.Request(
        "POST",
        "http://x/models",
        files={"file": ("m.safetensors", content)},
        data={"architecture": files.ARCHITECTURE},
    )
    return request.read(), request.headers["Content-Type"]


@pytest.fixture
def load(settings: Settings) -> Iterator["Load"]:
    made = Load()
    yield made
    made.over.set()


class Load:
    """Callers who create jobs and read them without a pause, and what went wrong."""

    def __init__(self) -> None:
        self.balancer, self.over = Balancer(), threading.Event()
        self.accepted: list[str] = []
        self.reads = 0
        self.wrong: list[str] = []

    def create(self, ids: dict[str, str]) -> None:
        self._until_over(lambda client: self._create(client, ids))

    def _create(self, client: httpx.Client, ids: dict[str, str]) -> None:
        answer = self.balancer.send(client, "POST", "/jobs", json=ids | files.SPEC)
        if answer.status_code == 202:
            self.accepted.append(answer.json()["id"])
        else:
            self.wrong.append(answer.text)

    def read(self) -> None:
        self._until_over(self._read)

    def _read(self, client: httpx.Client) -> None:
        path = f"/jobs/{self.accepted[-1]}" if self.accepted else "/jobs"
        answer = self.balancer.send(client, "GET", path)
        self.reads += 1
        if answer.status_code != 200:
            self.wrong.append(answer.text)

    def _until_over(self, call: Callable[[httpx.Client], None]) -> None:
        with httpx.Client(timeout=30, trust_env=False) as client:
            while not self.over.wait(0.05):
                try:
                    call(client)
                except Exception as error:
                    self.wrong.append(repr(error))


def roll(settings: Settings, load: Load, rounds: int) -> list[int]:
    """Replace the API `rounds` times under load, with an upload on its way each time.

    Returns the statuses of the uploads.
    """
    statuses: list[int] = []
    with ExitStack() as stack, ThreadPoolExecutor(8) as pool:
        client = stack.enter_context(httpx.Client(timeout=60, trust_env=False))
        urls: list[str] = []

        def start(number: int) -> Any:
            # Each says into a log of its own.
            home = Path(settings.home, f"api-{number}")
            home.mkdir()
            own = settings.model_copy(update={"home": home})
            process, url = stack.enter_context(serving(own, **LEAVING))
            wait_until(lambda: is_up(url))
            urls.append(url)
            return process

        old = start(0)
        load.balancer.look(urls, client)
        ids = {
            "model_id": client.post(
                f"{urls[0]}/models",
                files={"file": ("m", files.safetensors_file())},
                data={"architecture": files.ARCHITECTURE},
            ).json()["id"],
            "dataset_id": client.post(
                f"{urls[0]}/datasets", files={"file": ("d.npz", files.npz_file())}
            ).json()["id"],
        }
        callers = [pool.submit(load.create, ids), *(pool.submit(load.read) for _ in range(2))]
        body, content_type = in_parts(files.safetensors_file())
        for number in range(1, rounds + 1):
            new = start(number)
            load.balancer.look(urls, client)
            assert len(load.balancer.ready) == 2
            going = urls[0]
            upload = pool.submit(
                lambda url: (
                    httpx.post(
                        f"{url}/models",
                        content=trickle(body, DRAIN_S + 1),
                        headers={"Content-Type": content_type, "Content-Length": str(len(body))},
                        timeout=60,
                        trust_env=False,
                    ).status_code
                ),
                going,
            )
            time.sleep(0.3)  # Until it is on its way.
            old.terminate()
            # Not ready at once, and still there.
            wait_until(lambda url=going: not _is_ready(url, client), 5)
            assert client.get(f"{going}/healthz").headers["Connection"] == "close"
            load.balancer.look(urls, client)
            assert going not in load.balancer.ready
            old.wait(60)
            statuses.append(upload.result())
            urls.remove(going)
            old = new
        load.over.set()
        for caller in callers:
            caller.result()
    return statuses


def assert_nothing_lost(settings: Settings, load: Load) -> None:
    database = Database(make_engine(settings))
    with database.read() as session:
        kept = set(session.scalars(select(Job.id)))
        models = session.scalar(select(func.count()).select_from(Model))
    database.engine.dispose()
    assert load.wrong == []
    assert len(load.accepted) == len(set(load.accepted)) > 10
    assert kept == set(load.accepted)
    assert load.reads > 10
    assert models is not None
    assert models >= 2


def shared(settings: Settings) -> Settings:
    """What all processes share, in whatever folder each is."""
    return settings.model_copy(update={"store_url": Path(settings.home, "objects").as_uri()})


def test_an_api_process_is_replaced_and_no_caller_notices(settings: Settings, load: Load) -> None:
    together = shared(settings)
    assert roll(together, load, 1) == [201]
    assert_nothing_lost(together, load)


@pytest.mark.slow
def test_so_it_is_again_and_again(settings: Settings, load: Load) -> None:
    together = shared(settings)
    assert roll(together, load, 5) == [201] * 5
    assert_nothing_lost(together, load)
