"""Users for children: each has a user of its own, if there are some and its parent may change it.

A user id needs no entry in /etc/passwd.
"""

import fcntl
import os
import pwd
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sandbox import kernel

# CAP_CHOWN, DAC_OVERRIDE, FOWNER, KILL, SETGID and SETUID: to hand files over and take them back.
_NEEDED = {0: "CHOWN", 1: "DAC_OVERRIDE", 3: "FOWNER", 5: "KILL", 6: "SETGID", 7: "SETUID"}


class NoUser(Exception):
    """Children cannot have users of their own; the message says why."""


def parse(text: str) -> range:
    """Read `ATMC_CHILD_USER`: a name, an id, or ids from the first to the last (FIRST-LAST).

    Raises ValueError for anything else, for root, and for a name that there is not.
    """
    first, _, last = text.partition("-")
    if first.isdecimal() and (last or first).isdecimal():
        ids = range(int(first), int(last or first) + 1)
    else:
        try:
            user = pwd.getpwnam(text).pw_uid
        except KeyError as error:
            raise ValueError(f"there is no user {text!r}") from error
        ids = range(user, user + 1)
    if not ids or 0 in ids or ids[-1] >= 2**32 - 1:
        raise ValueError(f"{text!r}: a user who is not root, or FIRST-LAST")
    return ids


def check_powers() -> None:
    """Raise `NoUser` unless this process may start others as another user."""
    held = kernel.capabilities()
    missing = [name for bit, name in _NEEDED.items() if not held >> bit & 1]
    if missing:
        raise NoUser(f"its parent lacks {', '.join(missing)}")


@dataclass(frozen=True)
class Taken:
    """A user whom a child has; `shared` if others have it, too."""

    id: int
    shared: bool


@dataclass(frozen=True)
class Pool:
    """Users of whom each child takes one, while there are some."""

    ids: range
    locks: Path

    @contextmanager
    def take(self) -> Iterator[Taken]:
        """Take a user whom nobody else has, for the duration of the context; else share the last.

        The users that are taken are known by locks, so all processes that have the same folder of
        locks take different ones.
        """
        self.locks.mkdir(parents=True, exist_ok=True)
        for each in self.ids:
            with (self.locks / str(each)).open("a") as file:
                if _try_lock(file):
                    yield Taken(each, shared=False)
                    return
        yield Taken(self.ids[-1], shared=True)


def become(user: int, needed: Iterable[Path]) -> None:
    """Have this process be the user from now on, without groups of others.

    Raises `NoUser` if the user cannot reach one of the files that it needs; the process then is who
    it was. Raises OSError if it may not change.
    """
    own = os.geteuid()
    os.seteuid(user)
    unreachable = [path for path in needed if not os.access(path, os.R_OK, effective_ids=True)]
    os.seteuid(own)
    if unreachable:
        raise NoUser(f"user {user} cannot read {unreachable[0]}")
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    kernel.be_dumpable()


def hand_over(folder: Path, user: int) -> None:
    """Give a folder with all that is in it to a user; links are given, not followed."""
    for place, folders, files in os.walk(folder, topdown=False):
        for name in (*folders, *files):
            os.chown(os.path.join(place, name), user, user, follow_symlinks=False)
    os.chown(folder, user, user)


def end_all(user: int) -> None:
    """Kill whatever still runs as a user of a pool."""
    while pids := [pid for pid in filter(str.isdecimal, os.listdir("/proc")) if _is(pid, user)]:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def _is(pid: str, user: int) -> bool:
    """Whether a process is the user's and not one that has ended and waits to be reaped."""
    try:
        with open(f"/proc/{pid}/status") as status:
            fields = dict(line.split(":", 1) for line in status if ":" in line)
    except OSError:
        return False
    return int(fields["Uid"].split()[0]) == user and fields["State"].split()[0] != "Z"


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
