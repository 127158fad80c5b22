"""Enters the sandbox, part by part, in the order in which each part is still allowed to be."""

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from sandbox import cgroups, kernel, limits, network, seccomp, system, users
from sandbox.landlock import Ruleset

Mode = Literal["require", "best", "off"]

PROCESSES = 2048
"""A child may have so many processes and threads; one on a machine of many cores needs hundreds."""


class NotHeld(Exception):
    """Something that is required does not hold here; the message says what, and why."""


@dataclass(frozen=True)
class Restrictions:
    """What a process is to be shut into.

    Attributes:
        mode: "require": end if files, calls or network cannot be shut; "best": shut what can be;
            "off": limits of files and priority alone.
        folder: the folder that it may write into; None if there is none.
        together: whether it may start processes that reach each other over a network of their own.
        file_bytes: the size past which no file of its may grow.
        processes: how many processes and threads it may have.
        user: the id of the user whom it is to become; None to stay who it is.
        cgroup: the cgroup that it joins; None to stay where it is.
        shared: whether others may be that user at the same time.
        missing: why there is no such user and no such cgroup, by "user" and "cgroup".
    """

    mode: Mode = "best"
    folder: str | None = None
    together: bool = False
    file_bytes: int = 1 << 36
    processes: int = PROCESSES
    user: int | None = None
    shared: bool = False
    cgroup: str | None = None
    missing: dict[str, str] = field(default_factory=dict)

    def to_argument(self) -> str:
        """Return the restrictions as an argument of a command."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_argument(text: str) -> "Restrictions":
        """Read what `to_argument` has written."""
        return Restrictions(**json.loads(text))


@dataclass(frozen=True)
class Held:
    """What holds.

    Attributes:
        words: for each part, what holds, or that it does not and why.
        missing: the parts of those that can be required (files, calls, network) that do not hold.
    """

    words: Sequence[str]
    missing: Sequence[str]

    @classmethod
    def nothing(cls) -> "Held":
        """What holds where the sandbox is off."""
        return cls(["off (ATMC_SANDBOX=off)"], ["files", "calls", "network"])

    def __str__(self) -> str:
        return "sandbox: " + ", ".join(self.words)


def enter(wish: Restrictions) -> Held:
    """Shut this process, and all that it will start, in; returns what holds.

    It has to have one thread: the others would stay outside. Raises `NotHeld` for what is required
    and does not hold, OSError for a user or a cgroup that was given and cannot be taken, and
    RuntimeError if there are other threads.
    """
    if wish.mode == "off":
        limits.lower(file_bytes=wish.file_bytes, processes=None)
        return Held.nothing()
    if len(os.listdir("/proc/self/task")) > 1:
        raise RuntimeError("the sandbox has to be entered before other threads are started")
    held = _Entering(wish).enter()
    if wish.mode == "require" and held.missing:
        raise NotHeld(f"{' and '.join(held.missing)} cannot be shut here: {held}")
    return held


class _Entering:
    """One entrance; each part adds its words."""

    def __init__(self, wish: Restrictions) -> None:
        self._wish = wish
        self._folder = None if wish.folder is None else Path(wish.folder)
        self._words: list[str] = []
        self._missing: list[str] = []
        self._network: str | None = None
        self._no_network = ""
        self._code = system.Code.find()

    def enter(self) -> Held:
        wish = self._wish
        if wish.cgroup is not None:
            cgroups.join(Path(wish.cgroup))
        # As the user that this process is: later it may not be allowed, or not see the files.
        with suppress(OSError):
            network.leave()
            self._network = "own network"
        if self._folder is not None:
            self._code.link(self._folder / "code")
        ruleset = self._ruleset()
        if wish.user is not None:
            users.become(wish.user, self._needed_of_user())
        if self._network is None:
            self._leave_network_as_user()
        processes = self._most_processes()
        limits.lower(file_bytes=wish.file_bytes, processes=processes)
        kernel.gain_no_privileges()
        if ruleset is not None:
            ruleset.restrict_self()
            self._check_files(ruleset)
        kernel.drop_capabilities()
        self._filter_calls()
        self._say_network()
        self._say_user()
        self._say_limits(processes)
        return Held(self._words, self._missing)

    def _ruleset(self) -> Ruleset | None:
        try:
            ruleset = Ruleset(tcp=self._wish.together)
        except OSError as error:
            self._lacks("files", f"NO landlock ({kernel.name(error)})")
            return None
        for path, access in system.needed(
            self._code.paths, self._folder, together=self._wish.together
        ):
            ruleset.allow(path, access)
        return ruleset

    def _check_files(self, ruleset: Ruleset) -> None:
        above = "/" if self._folder is None else self._folder.parent
        try:
            os.listdir(above)
        except PermissionError:
            self._words.append(f"landlock {ruleset.version} ({', '.join(ruleset.closed)})")
        else:
            self._lacks("files", f"landlock WITHOUT EFFECT ({above} lies where programs do)")

    def _needed_of_user(self) -> list[Path]:
        own = [] if self._folder is None else [self._folder]
        return [Path(sys.executable), Path(os.__file__), *self._code.paths, *own]

    def _leave_network_as_user(self) -> None:
        try:
            network.leave_as_user()
            self._network = "own network in a user namespace"
        except OSError as error:
            self._no_network = kernel.name(error)

    def _filter_calls(self) -> None:
        try:
            seccomp.install(together=self._wish.together)
        except OSError as error:
            self._lacks("calls", f"NO seccomp ({kernel.name(error)})")
        except seccomp.Unsupported as error:
            self._lacks("calls", f"NO seccomp ({error})")
        else:
            self._words.append("seccomp")

    def _say_network(self) -> None:
        filtered = "calls" not in self._missing and not self._wish.together
        if self._network is not None:
            self._words.append(self._network)
        elif filtered:
            self._words.append("no sockets")
        else:
            self._lacks("network", f"the machine's NETWORK ({self._no_network})")

    def _say_user(self) -> None:
        if self._wish.user is not None:
            self._words.append(f"user {self._wish.user}{' (shared)' * self._wish.shared}")
        else:
            self._words.append(f"its parent's user{_why(self._wish.missing.get('user'))}")

    def _most_processes(self) -> int | None:
        """The limit of processes; None where the kernel would hold nobody to it."""
        if self._wish.user is not None or "namespace" in (self._network or ""):
            return self._wish.processes
        if os.getuid() == 0:
            return None
        # They count with those of the same user's that this process cannot tell from its own.
        return limits.threads_of(os.getuid()) + 4 * self._wish.processes

    def _say_limits(self, processes: int | None) -> None:
        if self._wish.cgroup is not None:
            self._words.append("cgroup")
            return
        count = "any number of processes" if processes is None else f"{processes} processes"
        self._words.append(f"{count}, no cgroup{_why(self._wish.missing.get('cgroup'))}")

    def _lacks(self, part: str, words: str) -> None:
        self._missing.append(part)
        self._words.append(words)


def _why(reason: str | None) -> str:
    return f" ({reason})" if reason else ""
