"""A cgroup (version 2) for each child, where this process was given a part of the tree.

systemd gives a service its part by `Delegate=yes`, best with `DelegateSubgroup=`. Which files there
are and may be written is found out by writing them.
"""

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

_CONTROLLERS = ("memory", "pids")
# Of the processors, beside others: half of what is usual.
_WEIGHT = 50
_END_S = 2.0
_POLL_S = 0.01


class NoCgroup(Exception):
    """Children cannot have cgroups of their own; the message says why."""


@dataclass(frozen=True)
class Cgroup:
    """A child's cgroup."""

    path: Path

    def kill(self) -> None:
        """Kill whatever runs in it."""
        with suppress(OSError):
            (self.path / "cgroup.kill").write_text("1")

    def remove(self) -> None:
        """Kill whatever runs in it, and remove it once that has ended."""
        self.kill()
        deadline = time.monotonic() + _END_S
        while time.monotonic() < deadline:
            try:
                self.path.rmdir()
            except FileNotFoundError:
                return
            except OSError:
                time.sleep(_POLL_S)


def join(path: Path) -> None:
    """Move this process into a cgroup; raises OSError."""
    (path / "cgroup.procs").write_text("0")


@dataclass(frozen=True)
class Parent:
    """A cgroup in which this process may make others."""

    path: Path

    def make(self, *, memory: int, processes: int) -> Cgroup:
        """Make a cgroup with these limits, in bytes and in processes; raises OSError."""
        made = Cgroup(self.path / f"atmc-child-{uuid4().hex[:12]}")
        made.path.mkdir()
        try:
            (made.path / "memory.max").write_text(str(memory))
            (made.path / "pids.max").write_text(str(processes))
            with suppress(OSError):
                # All of a child's processes or none: the rest of one would only wait.
                (made.path / "memory.oom.group").write_text("1")
                (made.path / "cpu.weight").write_text(str(_WEIGHT))
        except OSError:
            made.remove()
            raise
        return made


def find(proc: Path = Path("/proc/self")) -> Parent:
    """Find the cgroup for children: the one above this process's own, or its own.

    In its own this process has to step aside, because a cgroup with limits for others may have no
    processes itself. Raises `NoCgroup`.
    """
    own = _own(proc)
    why = ""
    for parent in (own.parent, own):
        try:
            return _prepared(parent, own)
        except NoCgroup as error:
            why = str(error)
        except OSError as error:
            why = f"{parent}: {error.strerror}"
    raise NoCgroup(why)


def _own(proc: Path) -> Path:
    """This process's own cgroup."""
    mounts = [line.split() for line in (proc / "mountinfo").read_text().splitlines()]
    found = [fields[4] for fields in mounts if fields[fields.index("-") + 1] == "cgroup2"]
    lines = (proc / "cgroup").read_text().splitlines()
    names = [line.removeprefix("0::") for line in lines if line.startswith("0::")]
    if not found or not names:
        raise NoCgroup("no cgroups of version 2 are mounted")
    return Path(found[0], names[0].lstrip("/"))


def _prepared(parent: Path, own: Path) -> Parent:
    """Have the children of `parent` limited; raises OSError and `NoCgroup`."""
    available = (parent / "cgroup.controllers").read_text().split()
    if missing := [each for each in _CONTROLLERS if each not in available]:
        raise NoCgroup(f"{parent} has no controller of {' and '.join(missing)}")
    if not _is_given(parent):
        raise NoCgroup(f"{parent} was not delegated")
    if parent == own:
        aside = parent / f"atmc-{os.getpid()}"
        aside.mkdir(exist_ok=True)
        join(aside)
    wanted = [each for each in (*_CONTROLLERS, "cpu") if each in available]
    (parent / "cgroup.subtree_control").write_text(" ".join(f"+{each}" for each in wanted))
    return Parent(parent)


def _is_given(parent: Path) -> bool:
    """Whether it was delegated: for a user if it may be written, for root if systemd marked it."""
    if os.geteuid() != 0:
        return os.access(parent, os.W_OK) and os.access(parent / "cgroup.procs", os.W_OK)
    for mark in ("trusted.delegate", "user.delegate"):
        with suppress(OSError):
            if os.getxattr(parent, mark) == b"1":
                return True
    return False
