"""Places for children: each has a run folder, and its own user and cgroup where there can be some.

What there can be is found out once, as the worker starts.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from jobstore.settings import Settings
from sandbox import PROCESSES, Held, NotHeld, Restrictions, cgroups, probe, users
from worker.folder import RunFolder, run_folder
from worker.memory import memory_limit

log = logging.getLogger(__name__)

# The supervisor ends a job at its limit and says so. The kernel, which can only kill, comes later.
_MEMORY_GRACE = 1.1
# Others may pass through a folder to one that they know, and not list it.
_PASS = 0o011


@dataclass(frozen=True)
class Place:
    """Where one child works.

    Attributes:
        folder: its run folder.
        restrictions: what it is shut into.
        cgroup: its cgroup, if it has one.
    """

    folder: RunFolder
    restrictions: Restrictions
    cgroup: cgroups.Cgroup | None

    def hand_over(self) -> None:
        """Give the child's user all that is in the folder; call it before the child reads any."""
        if self.restrictions.user is not None:
            users.hand_over(self.folder.path, self.restrictions.user)

    def take_back(self) -> None:
        """End whatever the child left running, and take the folder back."""
        if self.cgroup is not None:
            self.cgroup.kill()
        if self.restrictions.user is not None:
            if not self.restrictions.shared:
                users.end_all(self.restrictions.user)
            users.hand_over(self.folder.path, os.geteuid())


class Shelter:
    """Makes places.

    Attributes:
        held: what holds for a child that is alone in its place.
    """

    def __init__(self, settings: Settings, runs: Path) -> None:
        """`runs` is the folder of this machine's run folders.

        Raises `NotHeld` if `ATMC_SANDBOX` is "require" and something does not hold, and ValueError
        for an `ATMC_CHILD_USER` that there is not.
        """
        self._settings, self._runs = settings, runs
        self._missing: dict[str, str] = {}
        self._pool: users.Pool | None = None
        self._cgroups: cgroups.Parent | None = None
        if settings.sandbox == "off":
            self.held = Held.nothing()
            return
        self._find_cgroups()
        self.held = self._hold()

    @contextmanager
    def place(self, *, together: bool = False) -> Iterator[Place]:
        """Make a place for the duration of the context, for one child or several `together`."""
        with ExitStack() as stack:
            folder = stack.enter_context(run_folder(self._runs, uuid4().hex[:12]))
            user = stack.enter_context(self._pool.take()) if self._pool is not None else None
            if user is not None and not user.shared:
                # Of a child whose worker was killed something may be left.
                users.end_all(user.id)
            cgroup = self._cgroup(stack)
            restrictions = Restrictions(
                mode=self._settings.sandbox,
                processes=PROCESSES,
                folder=str(folder.path),
                together=together,
                file_bytes=self._settings.max_file_bytes,
                user=None if user is None else user.id,
                shared=user is not None and user.shared,
                cgroup=None if cgroup is None else str(cgroup.path),
                missing=self._missing,
            )
            place = Place(folder, restrictions, cgroup)
            place.hand_over()
            stack.callback(place.take_back)
            yield place

    def _hold(self) -> Held:
        """Try what holds for a child with a user of its own, or if that cannot be, without."""
        ids = users.parse(self._settings.child_user)
        opened: list[tuple[Path, int]] = []
        try:
            users.check_powers()
            opened = [_open(folder) for folder in (self._runs, self._runs.parent)]
            self._pool = users.Pool(ids, self._runs.parent / "child-users")
            return self._tried()
        except users.NoUser as error:
            self._pool, self._missing["user"] = None, str(error)
            for folder, mode in opened:
                folder.chmod(mode)
        asked = "child_user" in self._settings.model_fields_set
        if asked and self._settings.sandbox == "require":
            raise NotHeld(f"ATMC_CHILD_USER cannot be used here: {self._missing['user']}")
        return self._tried()

    def _tried(self) -> Held:
        with self.place() as place:
            return probe(place.restrictions)

    def _find_cgroups(self) -> None:
        try:
            self._cgroups = cgroups.find()
        except (cgroups.NoCgroup, OSError) as error:
            self._missing["cgroup"] = str(error)

    def _cgroup(self, stack: ExitStack) -> cgroups.Cgroup | None:
        if self._cgroups is None:
            return None
        memory = int(_MEMORY_GRACE * memory_limit(self._settings))
        made = self._cgroups.make(memory=memory, processes=PROCESSES)
        stack.callback(made.remove)
        return made


def _open(folder: Path) -> tuple[Path, int]:
    """Let others pass through a folder; returns it and its mode before."""
    folder.mkdir(parents=True, exist_ok=True)
    mode = folder.stat().st_mode & 0o7777
    folder.chmod(mode | _PASS)
    return folder, mode
