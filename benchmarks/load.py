"""What one API process on PostgreSQL bears while a job trains.

`python -m benchmarks.load` prints one JSON object last: `reads_per_s` and `read_p99_ms` of
`GET /jobs/{id}`, `creates_per_s` of `POST /jobs` and how many of those were `lost`, how many
waiting requests (`streams`) heard of a change, `queue_to_start_s` from a job's creation to its
child's first event; then the same with a table of finished jobs (`full_...`), and the processor
time of the API a request, which says more than the wall on a machine that is shared.
"""

import argparse
import http.client
import json
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import httpx
import psutil
from sqlalchemy import text

from benchmarks.chaos import Chaos
from benchmarks.house import House, house, wait_until
from benchmarks.small_job import SPEC
from benchmarks.timing import print_result
from jobstore import jobs

_LONG = SPEC | {"training": SPEC["training"] | {"robust_epochs": 9_000}}


def _hammer(
    url: str, seconds: float, clients: int, request: Callable[[http.client.HTTPConnection], None]
) -> list[float]:
    """Seconds of each of the requests that `clients` connections made, one after the other."""
    host = url.removeprefix("http://")
    until = time.monotonic() + seconds

    def work(_: int) -> list[float]:
        connection = http.client.HTTPConnection(host, timeout=30)
        took = []
        while time.monotonic() < until:
            began = time.perf_counter()
            request(connection)
            took.append(time.perf_counter() - began)
        connection.close()
        return took

    with ThreadPoolExecutor(clients) as pool:
        return [each for part in pool.map(work, range(clients)) for each in part]


def _cpu_s(made: House) -> float:
    process = made.parts["api"].process
    assert process is not None
    times = psutil.Process(process.pid).cpu_times()
    return float(times.user + times.system)


def reads(made: House, job_id: str, seconds: float, clients: int) -> dict[str, float]:
    """Rate, 99th percentile and processor time of `GET /jobs/{id}`."""

    def get(connection: http.client.HTTPConnection) -> None:
        connection.request("GET", f"/jobs/{job_id}")
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"GET answered {answer.status}")

    before = _cpu_s(made)
    took = _hammer(made.url, seconds, clients, get)
    return {
        "reads_per_s": len(took) / seconds,
        "read_p99_ms": 1000 * statistics.quantiles(took, n=100)[98],
        "read_api_cpu_ms": 1000 * (_cpu_s(made) - before) / len(took),
    }


def creates(made: House, body: dict[str, Any], seconds: float, clients: int) -> dict[str, float]:
    """Rate and processor time of `POST /jobs`, and how many accepted jobs are not there."""
    content, accepted, lock = json.dumps(body), list[str](), threading.Lock()

    def post(connection: http.client.HTTPConnection) -> None:
        connection.request("POST", "/jobs", content, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        document = json.loads(answer.read())
        if answer.status != 202:
            raise RuntimeError(document)
        with lock:
            accepted.append(document["id"])

    before = _cpu_s(made)
    took = _hammer(made.url, seconds, clients, post)
    database = made.database()
    with database.read() as session:
        there = jobs.states_of(session, accepted)
    with database.write() as session:
        # Not for the worker, which has one job to train.
        session.execute(
            text(
                "UPDATE jobs SET state = 'cancelled', finished_at = clock_timestamp() "
                "WHERE state = 'queued'"
            )
        )
    database.engine.dispose()
    return {
        "creates_per_s": len(took) / seconds,
        "create_api_cpu_ms": 1000 * (_cpu_s(made) - before) / len(took),
        "lost": len(set(accepted)) - len(there),
    }


def streams(made: House, body: dict[str, Any], count: int) -> int:
    """How many of `count` requests that wait for one job hear at once of its cancellation."""
    job = httpx.post(f"{made.url}/jobs", json=body).json()
    url = made.url + job["links"]["self"]

    def wait(_: int) -> bool:
        answer = httpx.get(url, params={"wait": 60}, timeout=70)
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


def queue_to_start(made: House, body: dict[str, Any], rounds: int) -> float:
    """Median seconds from a job's creation to its child's first event, with an idle worker."""
    took = []
    for _ in range(rounds):
        time.sleep(3)  # Until the next child has loaded the method: jobs are rarer than this.
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
    """Add finished jobs, by the state machine's own arrows."""
    columns = (
        "name, spec, model_id, dataset_id, progress, failed_attempts, max_attempts, "
        "time_limit_s, run_seconds, last_event_seq, created_at"
    )
    steps = (
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
        for step in steps:
            connection.execute(text(step))
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE jobs"))
    database.engine.dispose()


def measure(seconds: float, clients: int, waiting: int, finished: int) -> dict[str, Any]:
    """All of it, in one house."""
    with house(1, settings={"threads": 1, "device": "cpu"}) as made:
        ids = Chaos(made, random.Random(0)).upload()
        figures: dict[str, Any] = {"queue_to_start_s": queue_to_start(made, ids | _LONG, 5)}
        trains = httpx.post(f"{made.url}/jobs", json=ids | _LONG).json()
        job = made.url + trains["links"]["self"]
        wait_until(lambda: httpx.get(job).json()["epoch"], 120, "the training")
        for prefix in ("", "full_"):
            if prefix:
                fill(made, trains["id"], finished)
            measured = reads(made, trains["id"], seconds, clients)
            measured |= creates(made, ids | _LONG, seconds, clients)
            figures |= {f"{prefix}{name}": value for name, value in measured.items()}
        figures["streams"] = streams(made, ids | _LONG, waiting)
        figures["trained_on"] = httpx.get(job).json()["state"] == "running"
    return figures | {"clients": clients, "finished": finished}


def main() -> int:
    """Print one JSON line; 1 if a job was lost."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--finished", type=int, default=100_000)
    options = parser.parse_args()
    figures = measure(options.seconds, options.clients, options.streams, options.finished)
    print_result(figures)
    return int(figures["lost"] + figures["full_lost"] > 0)


if __name__ == "__main__":
    sys.exit(main())
