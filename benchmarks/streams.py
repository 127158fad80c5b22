"""The cost of many open event streams for one API process on PostgreSQL, next to steady reads.

`python -m benchmarks.streams` opens `--streams` streams, each of another job, reads jobs at
`--reads` requests per second, and appends one event to each job in turn. The last line of its
output is a JSON object: how many streams got their event (`complete`), the delay from an event's
commit to its arrival (`event_p50_ms`, `event_p99_ms`; the API polls every 200 ms), the rate and the
delays of the reads, and the CPU time and memory of the process. Client and service share the
machine.
"""

import argparse
import asyncio
import statistics
import sys
import time
from typing import Any

import httpx
import psutil

from benchmarks.house import House, house, wait_until
from benchmarks.timing import print_result
from jobstore import jobs, uploads
from jobstore.database import Database
from jobstore.events import EventType, NewEvent, append_event
from jobstore.tables import Job

# The index of the 99th percentile in `statistics.quantiles(..., n=100)`.
_P99 = 98


def add_jobs(database: Database, count: int) -> list[str]:
    """Queue jobs that no worker takes; returns their ids."""
    with database.write() as session:
        model = uploads.create_model(
            session,
            filename="m",
            format="safetensors",
            architecture="lenet",
            normalization=None,
            summary={},
            sha256="a" * 64,
            bytes=1,
        )
        dataset = uploads.create_dataset(
            session, filename="d", summary={}, sha256="b" * 64, bytes=1
        )
        return [
            jobs.create_job(
                session,
                spec={"method": "atmc"},
                model=model,
                dataset=dataset,
                max_attempts=3,
                time_limit_s=60,
            ).id
            for _ in range(count)
        ]


class Streams:
    """Open streams, and the time at which each event arrived.

    Attributes:
        came: the times, by job and number of the event.
        open: how many streams are open.
    """

    def __init__(self, url: str) -> None:
        self._url = httpx.URL(url)
        self.came: dict[tuple[str, int], float] = {}
        self.open = 0

    async def follow(self, job_id: str) -> None:
        """Read a stream until it ends, from a socket, so that the client needs little CPU time."""
        reader, writer = await asyncio.open_connection(self._url.host, self._url.port)
        request = f"GET /jobs/{job_id}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        writer.write(f"{request}Accept: text/event-stream\r\n\r\n".encode())
        try:
            async for line in reader:
                if line.startswith(b"id: "):
                    seq = int(line[4:])
                    self.came[job_id, seq] = time.time()
                    self.open += seq == 1
        finally:
            writer.close()


async def read_steadily(url: str, ids: list[str], rate: float, seconds: float) -> dict[str, float]:
    """Send `rate` reads per second, each when it is due; returns their rate and delays."""
    limits = httpx.Limits(max_connections=20)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=30) as client:

        async def read(number: int) -> float:
            began = time.perf_counter()
            answer = await client.get(f"/jobs/{ids[number % len(ids)]}")
            answer.raise_for_status()
            return time.perf_counter() - began

        reads, began = [], time.monotonic()
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            reads.append(asyncio.create_task(read(number)))
        took = await asyncio.gather(*reads)
        return {
            "reads_per_s": len(took) / (time.monotonic() - began),
            "read_p50_ms": 1000 * statistics.median(took),
            "read_p99_ms": 1000 * statistics.quantiles(took, n=100)[_P99],
        }


def tell(database: Database, ids: list[str], seconds: float) -> dict[tuple[str, int], float]:
    """Append one event to each job, spread over `seconds`; returns the times of the commits."""
    committed = {}
    for job_id in ids:
        with database.write() as session:
            job = session.get_one(Job, job_id, with_for_update=True)
            append_event(session, job, NewEvent(EventType.METRIC, {"stage": "x", "loss": 0.5}))
            seq = job.last_event_seq
        committed[job_id, seq] = time.time()
        time.sleep(seconds / len(ids))
    return committed


async def measure(made: House, count: int, rate: float, seconds: float) -> dict[str, Any]:
    """Open the streams, then read jobs and append events at the same time."""
    database = made.database()
    ids = add_jobs(database, count)
    process = psutil.Process(made.parts["api"].process.pid)  # type: ignore[union-attr]
    httpx.get(f"{made.url}/jobs/{ids[0]}").raise_for_status()
    memory = process.memory_info().rss
    streams = Streams(made.url)
    following = [asyncio.create_task(streams.follow(job_id)) for job_id in ids]
    async with asyncio.timeout(60):
        while streams.open < count:
            await asyncio.sleep(0.1)
    opened = process.memory_info().rss
    times, began = process.cpu_times(), time.monotonic()
    committed, reads = await asyncio.gather(
        asyncio.to_thread(tell, database, ids, seconds),
        read_steadily(made.url, ids, rate, seconds),
    )
    took = time.monotonic() - began
    used = process.cpu_times()
    await asyncio.sleep(1)
    for task in following:
        task.cancel()
    database.engine.dispose()
    delays = [streams.came[at] - when for at, when in committed.items() if at in streams.came]
    return {
        "streams": count,
        "complete": len(delays),
        "event_p50_ms": 1000 * statistics.median(delays),
        "event_p99_ms": 1000 * statistics.quantiles(delays, n=100)[_P99],
        **reads,
        "api_cpu_share": (used.user + used.system - times.user - times.system) / took,
        "memory_mib": (opened - memory) / 2**20,
    }


def main() -> int:
    """Print one JSON line; returns the exit status, 1 if an event did not arrive."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streams", description=__doc__)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--reads", type=float, default=100.0, help="a second")
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    with house(0) as made:
        healthy = lambda: httpx.get(f"{made.url}/healthz").is_success  # noqa: E731
        wait_until(lambda: _tried(healthy), 60, "the API")
        figures = asyncio.run(measure(made, options.streams, options.reads, options.seconds))
    print_result(figures)
    return int(figures["complete"] < figures["streams"])


def _tried(condition: Any) -> bool:
    try:
        return bool(condition())
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    sys.exit(main())
