"""A whole service in processes of its own, and the count of what is left of it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
START_S = 300.0


def wait_until(true: Callable[[], object], within_s: float, what: Callable[[], object]) -> None:
    """Poll until `true()`; fails with `what()` after `within_s`."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


@dataclass
class Launched:
    """One `python -m launcher` and its data folder."""

    process: "subprocess.Popen[bytes]"
    folder: Path
    log: Path

    def output(self) -> str:
        return self.log.read_text()

    def wait_ready(self) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, self.output()
            return "ready: " in self.output()

        wait_until(ready, START_S, self.output)

    def wait_said(self, text: str, within_s: float = 30.0) -> None:
        wait_until(lambda: text in self.output(), within_s, self.output)

    def part(self, command: str) -> psutil.Process:
        """The part whose command line holds `command`."""
        (found,) = [p for p in self.processes() if command in " ".join(p.cmdline())]
        return found

    def processes(self) -> list[psutil.Process]:
        """Every living process of the service: the launcher, its group, and the jobs' children."""
        group = int((self.folder / "parts.lock").read_text())
        return [p for p in psutil.process_iter() if self._is_ours(p, group)]

    def _is_ours(self, process: psutil.Process, group: int) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            ours = os.getpgid(process.pid) == group or process.pid == self.process.pid
            return ours or str(self.folder) in " ".join(process.cmdline())
        except (psutil.NoSuchProcess, ProcessLookupError):
            return False

    def wait_gone(self, within_s: float) -> None:
        wait_until(lambda: not self.processes(), within_s, self.processes)


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Launched]]:
    """Starts launchers on `tmp_path/data`; ends what a test has left running."""
    launched: list[Launched] = []

    def start(*options: str, within: Sequence[str] = (), **environment: str) -> Launched:
        log = tmp_path / f"launcher-{len(launched)}.log"
        folder = tmp_path / "data"
        launcher = [sys.executable, "-m", "launcher", "--data-dir", str(folder)]
        command = [*within, *launcher, *options]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env=os.environ | environment, stdout=output, stderr=output
            )
        launched.append(Launched(process, folder, log))
        return launched[-1]

    yield start
    for each in launched:
        each.process.send_signal(signal.SIGKILL)
        each.process.wait()
    for each in launched:
        if (each.folder / "parts.lock").exists():
            each.wait_gone(within_s=12)
