"""Attacks a running service for a while, and counts what it has to answer for.

`python -m benchmarks.siege --seconds 60` starts the service as `atmc serve` does, with a worker, in
a temporary folder (or takes `--server URL`, on this machine only, with the operator's key in
`ATMC_ADMIN_KEY`). Then it calls every route of its OpenAPI document with good and bad values
(schemathesis), sends requests that are none, uploads hostile files and queues jobs on those that
are taken in, has two tenants look for each other's things, sends the same request at once, breaks
uploads off, cancels jobs, and kills their processes. The last line of its output is a JSON object:

- `requests`, `hostile_files`: how many were sent;
- `server_errors`: answers with 5xx, other than 507 and a 503 that says when to come again;
- `accepted_and_crashed`: files that were taken in and then crashed their job's process, instead of
  having the job fail with a code of their own;
- `lost`: what was acknowledged and is gone; `wrong`: answers that disagree with what was sent, and
  what one tenant got of another's;
- `faults`: all of that, requests that were not answered within a minute, jobs that do not end, and
  files that ran their code. Each is printed with what repeats it.
"""

import argparse
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil

from benchmarks.besiegers import Files, Neighbours, Routes, until_over
from benchmarks.options import count, number
from benchmarks.raw import Raw
from benchmarks.target import TENANTS, Target, settle
from benchmarks.timing import print_result, say

FIGURES = (
    "requests", "server_errors", "hostile_files", "accepted_and_crashed", "faults", "lost", "wrong",
)  # fmt: skip
_START_S = 300.0
# The longest time that jobs on hostile files may take to end, once nothing more is sent.
_SETTLED_S = 300.0
# A child is killed about so often.
_KILL_EVERY_S = 60.0


def loopback(text: str) -> str:
    """An option that is a URL on this machine: nobody else's service is attacked."""
    host = urlsplit(text).hostname or ""
    with suppress(ValueError):
        if host == "localhost" or ip_address(host).is_loopback:
            return text.rstrip("/")
    raise argparse.ArgumentTypeError(f"only a service on this machine is attacked, not {host!r}")


@contextmanager
def service(folder: Path) -> Iterator[tuple[str, str, int]]:
    """Run the service; yields its URL, the operator's key, and the launcher's process id."""
    key = secrets.token_urlsafe(24)
    data = folder / "data"
    environment = os.environ | {
        "ATMC_ADMIN_KEY": key,
        "ATMC_THREADS": "1",
        "ATMC_DEVICE": "cpu",
        "ATMC_MAX_INFLATED_BYTES": str(12 << 20),
        "ATMC_MAX_MODEL_BYTES": str(32 << 20),
        "ATMC_MAX_DATASET_BYTES": str(32 << 20),
        "ATMC_TIME_LIMIT_S": "120",
    }
    command = [sys.executable, "-m", "launcher", "--port", "0", "--data-dir", str(data)]
    with (folder / "service.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        started = data / "service.json"
        deadline = time.monotonic() + _START_S
        while not started.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "service.log").read_text()[-2000:])
            time.sleep(0.1)
        yield json.loads(started.read_text())["url"], key, process.pid
    finally:
        process.terminate()
        process.wait()


def make_keys(url: str, admin: str) -> dict[str, str]:
    """Make a key for each tenant."""
    headers = {"Authorization": f"Bearer {admin}"}
    with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as client:
        keys = {"admin": admin}
        for tenant in (*TENANTS, "green"):
            body = {"tenant": tenant, "scopes": ["jobs:read", "jobs:write"]}
            made = client.post("/keys", json=body)
            made.raise_for_status()
            keys[tenant] = made.json()["key"]
    return keys


def kill_children(target: Target, launcher: int, source: random.Random) -> None:
    """Kill a job's process now and then; its job has to go on."""
    due = time.monotonic() + _KILL_EVERY_S
    while not target.is_over:
        time.sleep(0.5)
        if time.monotonic() < due:
            continue
        due = time.monotonic() + source.uniform(0.5, 1.5) * _KILL_EVERY_S
        with suppress(psutil.Error):
            parts = psutil.Process(launcher).children(recursive=True)
            children = [p for p in parts if "worker.child" in " ".join(p.cmdline())]
            if children:
                source.choice(children).kill()


def attack(
    target: Target, folder: Path, seed: int, launcher: int | None = None, settled_s: float = 0.0
) -> dict[str, int]:
    """Let all attackers loose until the siege is over; returns the figures."""

    def source(name: str) -> random.Random:
        return random.Random(f"{seed} {name}")

    attackers = {
        "files": Files(target, source("files"), folder),
        "routes": Routes(target, source("routes")),
        "raw": Raw(target, source("raw")),
        "neighbours": Neighbours(target, source("neighbours")),
    }
    threads = [
        threading.Thread(target=until_over, args=(target, run), name=name, daemon=True)
        for name, run in attackers.items()
    ]
    if launcher is not None:
        threads.append(
            threading.Thread(
                target=kill_children, args=(target, launcher, source("kills")), daemon=True
            )
        )
    target.until = time.monotonic() + target.seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, target.until - time.monotonic()) + 90)
        if thread.is_alive():
            target.fault("hangs", f"{thread.name} has not come back")
    say(f"over after {target.counts['requests']} requests; {len(target.kept)} things to look for")
    settle(target, settled_s)
    target.counts["faults"] = len(target.faults)
    return {name: target.counts[name] for name in FIGURES}


def main() -> int:
    """Print one JSON line; returns the exit status, 1 if there was a fault."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.siege",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=number, default=60.0)
    parser.add_argument("--requests", type=count, default=1_000_000, help="at most")
    parser.add_argument("--seed", type=int, help="by default a new one")
    parser.add_argument("--server", type=loopback, help="a running service, on this machine")
    options = parser.parse_args()
    # Whoever ends the siege early does not leave its service behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    seed = random.SystemRandom().randrange(2**31) if options.seed is None else options.seed
    say(f"seed {seed}")
    folder = Path(tempfile.mkdtemp(prefix="atmc-siege-"))
    if options.server:
        if (key := os.environ.get("ATMC_ADMIN_KEY")) is None:
            parser.error("--server: ATMC_ADMIN_KEY has to have the operator's key")
        figures = _besiege(options, folder, seed, options.server, key, None)
    else:
        with service(folder) as (url, key, launcher):
            figures = _besiege(options, folder, seed, url, key, launcher)
    if figures["faults"]:
        say(f"the service's log and the files are in {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    print_result(dict(figures))
    return int(figures["faults"] > 0)


def _besiege(
    options: argparse.Namespace, folder: Path, seed: int, url: str, key: str, launcher: int | None
) -> dict[str, int]:
    target = Target(url, make_keys(url, key), options.seconds, options.requests)
    return attack(target, folder, seed, launcher, _SETTLED_S)


if __name__ == "__main__":
    sys.exit(main())
