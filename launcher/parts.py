"""The processes of the service: starts them, restarts them after a pause, ends them in order."""

import contextlib
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

POLL_S = 0.1
# The pause before a restart doubles from the first to the longest one.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
# If a part ran this long, the next pause is the first one again.
STEADY_S = 60.0
# The number of lines of a log that are shown.
TAIL_LINES = 15


def module(name: str, *arguments: str) -> tuple[str, ...]:
    """The command that runs a module with this Python interpreter."""
    return (sys.executable, "-m", name, *arguments)


@dataclass(frozen=True)
class Part:
    """A process of the service: its name, its command, and how long it may take to end.

    `settings` are variables that it has beside those that all parts have.
    """

    name: str
    command: tuple[str, ...]
    grace_s: float
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _Running:
    """A part that was started; `falls` counts how often in a row it ended by itself."""

    part: Part
    process: subprocess.Popen[bytes]
    started: float
    falls: int = 0
    restart_at: float | None = None


@dataclass
class Parts:
    """Keeps parts running; all calls must come from one thread.

    Attributes:
        environment: the environment of the watchdog, and of every part beside its settings.
        logs: the folder of the logs.
        inherited: a lock file that every part inherits.
        say: a function that prints a line to the user.
        group: the process group of all parts; 0 before `open`.
    """

    environment: Mapping[str, str]
    logs: Path
    inherited: IO[str]
    say: Callable[[str], None]
    group: int = 0
    _running: dict[str, _Running] = field(default_factory=dict)
    _watchdog: subprocess.Popen[bytes] | None = None

    def open(self) -> None:
        """Start the watchdog, and with it the process group that all parts join."""
        # The parts are not in the launcher's group, so that Ctrl-C reaches the launcher alone,
        # which ends them in order.
        self._watchdog = subprocess.Popen(
            module("launcher.watchdog"),
            stdin=subprocess.PIPE,
            env=dict(self.environment),
            process_group=self.group,
        )
        self.group = self.group or self._watchdog.pid

    def start(self, part: Part) -> None:
        """Start a part; its output goes to `NAME.log`, and the log of the run before is kept."""
        log = self._log(part.name)
        if log.exists():
            log.replace(log.with_suffix(".log.1"))
        self._running[part.name] = _Running(part, self._spawn(part), time.monotonic())

    def tend(self) -> None:
        """Notice parts that ended by themselves, and restart those whose pause is over."""
        for running in self._running.values():
            now = time.monotonic()
            if running.restart_at is None and running.process.poll() is not None:
                self._plan_restart(running, now)
            elif running.restart_at is not None and now >= running.restart_at:
                running.process, running.started = self._spawn(running.part), now
                running.restart_at = None
                self.say(f"{running.part.name} started again")
        if self._watchdog is not None and self._watchdog.poll() is not None:
            self.say("the watchdog ended unexpectedly; starting another")
            self.open()

    def names(self) -> list[str]:
        """The parts that were started, in that order."""
        return list(self._running)

    def falls(self, name: str) -> int:
        """How often in a row the part has ended by itself."""
        return self._running[name].falls

    def tail(self, name: str) -> str:
        """The last lines of a part's log, indented."""
        with self._log(name).open(encoding="utf-8", errors="replace") as log:
            return "".join(f"    {line}" for line in deque(log, TAIL_LINES)).rstrip()

    def end(self, names: Sequence[str], hurry: Callable[[], bool]) -> None:
        """End parts at the same time: by SIGTERM, and by SIGKILL if that takes too long.

        It takes too long when a part's `grace_s` is over, or when `hurry` returns true.
        """
        ending = [self._running.pop(name) for name in names if name in self._running]
        for running in ending:
            running.process.terminate()
        began = time.monotonic()
        while alive := [each for each in ending if each.process.poll() is None]:
            for running in alive:
                if hurry() or time.monotonic() - began > running.part.grace_s:
                    self.say(f"{running.part.name} does not end and is killed")
                    _kill_with_children(running.process)
            time.sleep(POLL_S)

    def close(self) -> None:
        """End the watchdog, once every part has ended."""
        if self._watchdog is not None:
            self._watchdog.kill()
            self._watchdog.communicate()

    def _plan_restart(self, running: _Running, now: float) -> None:
        running.falls = 1 if now - running.started > STEADY_S else running.falls + 1
        pause = min(FIRST_PAUSE_S * 2 ** (running.falls - 1), LONGEST_PAUSE_S)
        running.restart_at = now + pause
        name = running.part.name
        self.say(
            f"{name} ended unexpectedly ({_how(running.process.returncode)}), "
            f"restarting in {pause:.0f} s; the end of {self._log(name)}:\n{self.tail(name)}"
        )

    def _spawn(self, part: Part) -> subprocess.Popen[bytes]:
        with self._log(part.name).open("ab") as log:
            return subprocess.Popen(
                part.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**self.environment, **part.settings},
                process_group=self.group,
                pass_fds=[self.inherited.fileno()],
            )

    def _log(self, name: str) -> Path:
        return self.logs / f"{name}.log"


def _how(returncode: int) -> str:
    return f"signal {-returncode}" if returncode < 0 else f"exit status {returncode}"


def _kill_with_children(process: subprocess.Popen[bytes]) -> None:
    """Kill a part and all that it has started, in sessions of their own, too; wait for their end.

    The children would notice the end of their part, but not before they have begun to listen.
    """
    try:
        # Stopped, it starts no others while they are counted.
        leader = psutil.Process(process.pid)
        leader.suspend()
        left = leader.children(recursive=True)
    except psutil.NoSuchProcess:
        left = []
    process.kill()
    for child in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait()
    psutil.wait_procs(left, timeout=1.0)
