"""The load that one API process on PostgreSQL can bear while a job trains.

The last line that `python -m benchmarks.load` prints is a JSON object:

- `reads_per_s` and `read_p99_ms`: the rate and the 99th percentile of the latency of
  `GET /jobs/{id}` at the requested rate, and `most_reads_per_s`, the highest rate;
- `creates_per_s` and so on: the same for `POST /jobs`, and `lost`, how many created jobs are not
  there;
- `edge`: what is answered in time, and what is turned away with 503, when 0.9 and 1.1 times as many
  reads are sent as are answered at most: see `benchmarks.overload`;
- `streams`: how many of the `waiting` requests heard of a change;
- `queue_to_start_s`: the time from a job's creation to its child's first event;
- `full_...`: the same figures with a table of many finished jobs;
- `..._api_cpu_ms` and `api_start_cpu_s`: the CPU time of the API for a request, and until it first
  answers. On a shared machine this says more than the elapsed time.

The latency of a request is measured from the moment at which it was due. So if it had to wait for
the answer to an earlier request, that time counts, as it does for a user. The first seconds of each
measurement are left out.
"""

import argparse
import asyncio
import http.client
import json
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import httpx
import psutil
from sqlalchemy import text

from benchmarks.chaos import Chaos
from benchmarks.house import House, house, wait_until
from benchmarks.overload import Client, edge
from benchmarks.small_job import SPEC
from benchmarks.timing import print_result
from jobstore import jobs
from jobstore.dialects import reading

Figures = dict[str, Any]

# A job that trains for longer than the benchmark runs.
_LONG = SPEC | {"training": SPEC["training"] | {"robust_epochs": 9_000}}

_WARM_UP_S = 3.0
# How often the time from the queue to the start is measured.
_STARTS = 5
# How much is asked for on both sides of the edge, by what is answered at most.
_EDGE = (0.9, 1.1)
# The index of the 99th percentile in `statistics.quantiles(..., n=100)`.
_P99 = 98


@dataclass(frozen=True)
class Options:
    """The options of the benchmark.

    Attributes:
        seconds: how long each part of it takes.
        clients: the number of connections.
        read_rate: `GET /jobs/{id}` per second.
        create_rate: `POST /jobs` per second.
        waiting: the number of requests that wait for a job at the same time.
        finished: the number of finished jobs in the full table.
    """

    seconds: float = 10.0
    clients: int = 8
    read_rate: float = 310.0
    create_rate: float = 105.0
    waiting: int = 200
    finished: int = 100_000


Request = Callable[[http.client.HTTPConnection], None]


@dataclass(frozen=True)
class _Sent:
    """The requests that were answered per second, and the seconds that each took."""

    per_s: float
    took: list[float]

    @property
    def p99_ms(self) -> float:
        return 1000 * statistics.quantiles(self.took, n=100)[_P99]


def _send(url: str, seconds: float, clients: int, rate: float | None, request: Request) -> _Sent:
    """Send requests for `seconds` over `clients` connections.

    Args:
        url: the API's URL.
        seconds: how long requests are sent.
        clients: the number of connections.
        rate: requests per second over all connections; None sends as many as possible.
        request: sends a request over a connection.
    """
    host = url.removeprefix("http://")
    began = time.perf_counter()

    def work(number: int) -> list[float]:
        connection = http.client.HTTPConnection(host, timeout=30)
        # The clients send at an even pace, one after the other.
        due, took = began + (number / rate if rate else 0.0), []
        while due < began + seconds:
            time.sleep(max(0.0, due - time.perf_counter()))
            request(connection)
            took.append(time.perf_counter() - due)
            due = due + clients / rate if rate else time.perf_counter()
        connection.close()
        return took

    with ThreadPoolExecutor(clients) as pool:
        took = [each for part in pool.map(work, range(clients)) for each in part]
    return _Sent(len(took) / (time.perf_counter() - began), took)


def _cpu_s(made: House) -> float:
    process = made.parts["api"].process
    assert process is not None
    times = psutil.Process(process.pid).cpu_times()
    return float(times.user + times.system)


def _figures(name: str, made: House, options: Options, rate: float, request: Request) -> Figures:
    # Meanwhile connections are opened, statements are prepared, and the worker's next child loads
    # torch.
    _send(made.url, _WARM_UP_S, options.clients, rate, request)
    sent = _send(made.url, options.seconds, options.clients, rate, request)
    before = _cpu_s(made)
    most = _send(made.url, options.seconds, options.clients, None, request)
    return {
        f"{name}s_per_s": sent.per_s,
        f"{name}_p99_ms": sent.p99_ms,
        f"most_{name}s_per_s": most.per_s,
        f"{name}_api_cpu_ms": 1000 * (_cpu_s(made) - before) / len(most.took),
    }


def reads(made: House, options: Options, job_id: str) -> Figures:
    """The rate, the 99th percentile of the latency, and the CPU time of `GET /jobs/{id}`."""

    def get(connection: http.client.HTTPConnection) -> None:
        connection.request("GET", f"/jobs/{job_id}")
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"GET answered {answer.status}")

    return _figures("read", made, options, options.read_rate, get)


def creates(made: House, options: Options, body: dict[str, Any]) -> Figures:
    """The same figures for `POST /jobs`, and how many accepted jobs are not there."""
    content, accepted, lock = json.dumps(body), list[str](), threading.Lock()

    def post(connection: http.client.HTTPConnection) -> None:
        connection.request("POST", "/jobs", content, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        document = json.loads(answer.read())
        if answer.status != 202:
            raise RuntimeError(document)
        with lock:
            accepted.append(document["id"])

    figures = _figures("create", made, options, options.create_rate, post)
    database = made.database()
    with database.read() as session:
        there = jobs.heads_of(session, accepted)
    with database.write() as session:
        # The worker has another job to train, so these are cancelled.
        session.execute(
            text(
                "UPDATE jobs SET state = 'cancelled', finished_at = clock_timestamp() "
                "WHERE state = 'queued'"
            )
        )
    database.engine.dispose()
    return figures | {"created": len(accepted), "lost": len(set(accepted)) - len(there)}


def streams(made: House, body: dict[str, Any], count: int) -> int:
    """How many of `count` requests that wait for one job hear of its cancellation."""
    job = httpx.post(f"{made.url}/jobs", json=body).json()
    url = made.url + job["links"]["self"]

    def wait(_: int) -> bool:
        # All begin at once, so some are turned away at first and come back when they are told to.
        while (answer := httpx.get(url, params={"wait": 60}, timeout=70)).status_code == 503:
            time.sleep(int(answer.headers["Retry-After"]))
        return bool(answer.json()["state"] == "cancelled")

    with ThreadPoolExecutor(count) as pool:
        waiting = [pool.submit(wait, number) for number in range(count)]
        process = made.parts["api"].process
        assert process is not None
        connections = psutil.Process(process.pid).net_connections
        wait_until(
            lambda: (
                sum(
                    c.status == "ESTABLISHED" and c.laddr[1] == made.settings.port
                    for c in connections("tcp")
                )
                >= count
            ),
            60,
            "all to wait",
        )
        httpx.post(made.url + job["links"]["cancel"])
        return sum(each.result() for each in waiting)


def _has_loaded(made: House) -> bool:
    """Tell whether the worker's next child has loaded the method, and so uses no more CPU time."""

    def work() -> list[tuple[int, float]]:
        children = made.parts["worker-1"].children()
        return [(child.pid, sum(child.cpu_times()[:2])) for child in children]

    before = work()
    time.sleep(1)
    return before != [] and work() == before


def queue_to_start(made: House, body: dict[str, Any], rounds: int) -> float:
    """The median time from a job's creation to its child's first event, with an idle worker."""
    took = []
    for _ in range(rounds):
        wait_until(lambda: _has_loaded(made), 120, "a child that waits")
        job = httpx.post(f"{made.url}/jobs", json=body).json()
        events = made.url + job["links"]["events"]
        first: list[dict[str, Any]] = []

        def started(found: list[dict[str, Any]] = first, url: str = events) -> bool:
            told = httpx.get(url).json()["data"]
            found[:] = [event for event in told if event["type"] == "stage"]
            return bool(found)

        wait_until(started, 60, "the child's first event")
        moments = [datetime.fromisoformat(t) for t in (job["created_at"], first[0]["time"])]
        took.append((moments[1] - moments[0]).total_seconds())
        _cancel(made, job)
    return statistics.median(took)


def _cancel(made: House, job: dict[str, Any]) -> None:
    httpx.post(made.url + job["links"]["cancel"])
    ended = lambda: httpx.get(made.url + job["links"]["self"]).json()["finished_at"]  # noqa: E731
    wait_until(ended, 60, "the cancellation")


def fill(made: House, like: str, count: int) -> None:
    """Add `count` finished jobs like the job `like`, through the allowed changes of state."""
    columns = (
        "name, spec, model_id, dataset_id, progress, failed_attempts, max_attempts, "
        "time_limit_s, run_seconds, last_event_seq, created_at"
    )
    statements = (
        (
            f"INSERT INTO jobs (id, state, attempt, {columns}) SELECT 'job_' || "
            "lpad(to_hex(n), 32, '0'), 'queued', 0, "
            f"{columns} FROM jobs, generate_series(1, {count}) AS n WHERE id = '{like}'"
        ),
        (
            "UPDATE jobs SET state = 'validating', attempt = 1, owner = 'filler', "
            "lease_expires_at = clock_timestamp() + interval '1 hour' WHERE id < 'job_00001'"
        ),
        (
            "UPDATE jobs SET state = 'succeeded', owner = NULL, lease_expires_at = NULL, "
            "finished_at = clock_timestamp() WHERE owner = 'filler'"
        ),
    )
    database = made.database()
    with database.engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    with reading(database.engine).connect() as connection:  # no transaction: VACUUM allows none
        connection.execute(text("VACUUM ANALYZE jobs"))
    database.engine.dispose()


def measure(options: Options) -> Figures:
    """Run all parts of the benchmark on one deployment."""
    with house(1, settings={"threads": 1, "device": "cpu"}) as made:
        figures: Figures = {"api_start_cpu_s": _cpu_s(made)}
        ids = Chaos(made, random.Random(0)).upload()
        figures["queue_to_start_s"] = queue_to_start(made, ids | _LONG, _STARTS)
        trains = httpx.post(f"{made.url}/jobs", json=ids | _LONG).json()
        job = made.url + trains["links"]["self"]
        wait_until(lambda: httpx.get(job).json()["epoch"], 120, "the training")
        for prefix in ("", "full_"):
            if prefix:
                fill(made, trains["id"], options.finished)
            measured = reads(made, options, trains["id"])
            measured |= creates(made, options, ids | _LONG)
            figures |= {f"{prefix}{name}": value for name, value in measured.items()}
        reader = Client(made.url, "GET", trains["links"]["self"])
        figures["edge"] = asyncio.run(edge(reader, options.seconds, *_EDGE))
        figures["streams"] = streams(made, ids | _LONG, options.waiting)
        figures["trained_on"] = httpx.get(job).json()["state"] == "running"
    return figures | vars(options)


def main() -> int:
    """Print one JSON line; returns the exit status, 1 if a job was lost."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    for each in fields(Options):
        name = f"--{each.name.replace('_', '-')}"
        parser.add_argument(name, type=type(each.default), default=each.default)
    figures = measure(Options(**vars(parser.parse_args())))
    print_result(figures)
    return int(figures["lost"] + figures["full_lost"] > 0)


if __name__ == "__main__":
    sys.exit(main())
