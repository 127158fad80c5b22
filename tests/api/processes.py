"""`python -m api` as a process of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from benchmarks.house import as_environment
from jobstore.settings import Settings
from tests.ports import free_ports

COMMAND = [sys.executable, "-m", "api"]


@contextmanager
def serving(
    settings: Settings, *, cwd: Path | None = None, **changes: str
) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """Run it; yields the process and its URL at once, before it answers. It says into `log_of`.

    Args:
        cwd: whose code is run.
        changes: variables over those of the settings.
    """
    (port,) = free_ports(1)
    environment = os.environ | as_environment(settings) | {"ATMC_PORT": str(port)} | changes
    with log_of(settings).open("wb") as log:
        process = subprocess.Popen(COMMAND, cwd=cwd, env=environment, stdout=log, stderr=log)
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def log_of(settings: Settings) -> Path:
    """The file with all that the process printed."""
    return settings.home / "api.log"


def is_up(url: str) -> bool:
    """Tell whether it answers."""
    try:
        # Asked again and again, and to read the authorities' certificates takes 50 ms.
        return httpx.get(f"{url}/healthz", timeout=20, trust_env=False, verify=False).is_success
    except httpx.TransportError:
        return False


def refusal(**environment: str) -> str:
    """What it says when it ends at once, with status 2, over these variables."""
    done = subprocess.run(
        COMMAND,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    return done.stdout + done.stderr
