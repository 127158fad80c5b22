"""What one API process answers when a little less, and when more is asked of it than it bears.

`python -m benchmarks.overload` runs an API process with a broker, on SQLite or `--database
postgresql`, finds how many `GET /jobs/{id}` and `POST /jobs` it answers a second, and then asks for
`--below` and `--above` times as many. Requests are sent when they are due, whether or not those
before them were answered, over as many connections as that takes. The last line of its output is a
JSON object. For reads and creations each:

- `capacity_per_s`: what it answers when 32 clients ask without a pause;
- `below` and `above`: `offered_per_s`; `answered_per_s`, until the last one was; `p50_ms` and
  `p99_ms` of what was answered, from when each was due; `shed`, the share that was turned away with
  503 and `Retry-After`; `shed_p99_ms`; and `unanswered`, the number of all others.

The client takes processor time of the same machine.
"""

import argparse
import asyncio
import json
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from atmc_core.job.catalogue import catalogue
from benchmarks.growth import server
from benchmarks.house import Part, as_environment, wait_until
from benchmarks.machine import commit, hardware
from benchmarks.options import number
from benchmarks.small_job import SPEC
from benchmarks.streams import add_jobs
from benchmarks.timing import print_result, say
from jobstore import catalogue as published
from jobstore import jobs
from jobstore.database import Database, make_engine, migrate
from jobstore.settings import Settings
from launcher.broker import prepare_broker
from launcher.ports import free_port

_CLIENTS = 32
# More connections than this are not opened; what would need one counts as unanswered.
_MOST_CONNECTIONS = 2_000
_WARM_UP_S = 2.0
_PATIENCE_S = 30.0
_P99 = 98


@dataclass
class Answers:
    """How long each request took from when it was due, by what became of it.

    Attributes:
        answered, shed: the seconds of those that were answered, and turned away.
        unanswered: how many others there were.
        lasted_s: from the first request until the last one's answer.
    """

    answered: list[float] = field(default_factory=list)
    shed: list[float] = field(default_factory=list)
    unanswered: int = 0
    lasted_s: float = 0.0

    def figures(self, seconds: float) -> dict[str, float]:
        """The figures of the module's description; requests were sent for `seconds`."""
        asked = len(self.answered) + len(self.shed) + self.unanswered
        return {
            "offered_per_s": round(asked / seconds, 1),
            "answered_per_s": round(len(self.answered) / max(seconds, self.lasted_s), 1),
            "p50_ms": round(1000 * statistics.median(self.answered or [0.0]), 1),
            "p99_ms": round(_p99_ms(self.answered), 1),
            "shed": round(len(self.shed) / max(1, asked), 4),
            "shed_p99_ms": round(_p99_ms(self.shed), 1),
            "unanswered": self.unanswered,
        }


def _p99_ms(took: list[float]) -> float:
    return 1000 * statistics.quantiles(took, n=100)[_P99] if len(took) > 1 else 0.0


class Client:
    """Sends the same request over connections that it keeps open."""

    def __init__(self, url: str, method: str, path: str, body: bytes = b"") -> None:
        parsed = httpx.URL(url)
        self._address = (parsed.host, parsed.port)
        head = f"{method} {path} HTTP/1.1\r\nHost: {parsed.host}\r\nContent-Length: {len(body)}\r\n"
        self._request = f"{head}Content-Type: application/json\r\n\r\n".encode() + body
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._open = 0

    async def send(self, due: float, answers: Answers) -> None:
        """Send one request and note what becomes of it."""
        try:
            status, headers = await asyncio.wait_for(self._answer(), _PATIENCE_S)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            answers.unanswered += 1
            return
        took = time.perf_counter() - due
        if status < 300:
            answers.answered.append(took)
        elif status == 503 and b"retry-after" in headers:
            answers.shed.append(took)
        else:
            answers.unanswered += 1

    async def _answer(self) -> tuple[int, bytes]:
        while self._idle:
            # The server may have closed one that was idle for long.
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                return await self._exchange(*self._idle.pop())
            self._open -= 1
        if self._open < _MOST_CONNECTIONS:
            self._open += 1
            return await self._exchange(*await asyncio.open_connection(*self._address))
        raise ConnectionRefusedError

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[int, bytes]:
        writer.write(self._request)
        headers = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = headers.partition(b"content-length:")[2].partition(b"\r")[0]
        await reader.readexactly(int(length))
        if b"connection: close" in headers:
            writer.close()
            self._open -= 1
        else:
            self._idle.append((reader, writer))
        return int(headers.split(b" ", 2)[1]), headers

    async def without_pause(self, seconds: float) -> float:
        """The number of answers a second when some clients ask one thing after the other."""
        answers = Answers()
        began = time.perf_counter()

        async def ask() -> None:
            while time.perf_counter() < began + seconds:
                await self.send(time.perf_counter(), answers)

        await asyncio.gather(*(ask() for _ in range(_CLIENTS)))
        return len(answers.answered) / (time.perf_counter() - began)

    async def at_rate(self, rate: float, seconds: float) -> Answers:
        """What becomes of requests that are sent at an even pace."""
        answers, sent = Answers(), []
        began = time.perf_counter()
        for turn in range(int(rate * seconds)):
            due = began + turn / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            sent.append(asyncio.create_task(self.send(due, answers)))
        await asyncio.gather(*sent)
        answers.lasted_s = time.perf_counter() - began
        return answers

    def close(self) -> None:
        """Close the connections."""
        for _, writer in self._idle:
            writer.close()


@contextmanager
def api(kind: str) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Run an API process; yields its URL, the body of a job, and the path of one."""
    folder = Path(tempfile.mkdtemp(prefix="atmc-overload-"))
    (folder / "broker").mkdir()
    broker = prepare_broker(folder / "broker")
    with ExitStack() as cleanup:
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        more = {}
        if kind == "postgresql":
            more["database_url"] = cleanup.enter_context(server(None))
        own = Settings(
            home=folder / "home",
            broker_url=broker.url,
            port=free_port("127.0.0.1"),
            max_queued_jobs=10**9,
            requests_per_minute=10**9,
            **more,
        )
        database = Database(make_engine(own))
        migrate(database.engine)
        with database.write() as session:
            published.publish(session, catalogue())
        (job_id,) = add_jobs(database, 1)
        with database.read() as session:
            job = jobs.get_job(session, job_id)
        database.engine.dispose()
        for name, command in (
            ("broker", broker.command),
            ("api", [sys.executable, "-m", "api"]),
        ):
            part = Part(name, command, as_environment(own), folder / f"{name}.log")
            part.start()
            cleanup.callback(part.kill)
        url = f"http://127.0.0.1:{own.port}"
        wait_until(lambda: _is_up(url), 120, "the API")
        ids = {"model_id": job.model_id, "dataset_id": job.dataset_id}
        yield url, ids | SPEC, f"/jobs/{job_id}"


def _is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", timeout=5, trust_env=False).is_success
    except httpx.TransportError:
        return False


async def edge(client: Client, seconds: float, below: float, above: float) -> dict[str, Any]:
    """Find what the process bears, and ask for less and for more."""
    await client.without_pause(_WARM_UP_S)
    capacity = await client.without_pause(seconds)
    figures: dict[str, Any] = {"capacity_per_s": round(capacity, 1)}
    for name, share in (("below", below), ("above", above)):
        answers = await client.at_rate(share * capacity, seconds)
        figures[name] = answers.figures(seconds)
        say(f"{share:g} times: {figures[name]}")
    client.close()
    return figures


def measure(kind: str, seconds: float, below: float, above: float) -> dict[str, Any]:
    """The figures of both kinds of requests on a database of this kind."""
    with api(kind) as (url, body, path):
        clients = {
            "reads": Client(url, "GET", path),
            "creations": Client(url, "POST", "/jobs", json.dumps(body).encode()),
        }
        return {
            name: asyncio.run(edge(client, seconds, below, above))
            for name, client in clients.items()
        }


def main() -> int:
    """Print one JSON line; returns the exit status, 1 if anything was neither done nor refused."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload", description=__doc__)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--seconds", type=number, default=10.0, help="of each part")
    parser.add_argument("--below", type=number, default=0.9)
    parser.add_argument("--above", type=number, default=1.1)
    options = parser.parse_args()
    # Whoever ends it early leaves no server behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    figures = measure(options.database, options.seconds, options.below, options.above)
    lost = [part[side]["unanswered"] for part in figures.values() for side in ("below", "above")]
    machine = {"hardware": hardware(), "commit": commit()}
    print_result({"database": options.database, **figures, **machine})
    return int(sum(lost) > 0)


if __name__ == "__main__":
    sys.exit(main())
