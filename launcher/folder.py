"""The data folder: its owner, its logs, and the file that tells where the service is."""

import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from launcher.watchdog import GRACE_S

# After this time the watchdog has killed the parts of a dead launcher, if it is alive.
LEFTOVERS_S = GRACE_S + 2.0
_POLL_S = 0.05


class FolderInUse(Exception):
    """Another launcher owns this folder; the message says which one, and what to do."""


class DataFolder:
    """The folder in which a service keeps everything; one launcher at a time owns it.

    There are two locks, which the kernel releases when their last holder ends. The launcher alone
    holds `launcher.lock`. The launcher and all parts that it started hold `parts.lock`. So if the
    first lock is free and the second is not, a launcher was killed and its parts still run. Process
    ids could not tell that, because they are reused.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.logs = self.path / "logs"
        self.broker = self.path / "broker"
        self._service_file = self.path / "service.json"

    @contextmanager
    def owned(self) -> Iterator[IO[str]]:
        """Own the folder for the duration of the context.

        It is created if it does not exist, and the parts of a killed launcher are ended. Yields the
        open `parts.lock`, which every part must inherit. Raises FolderInUse if another launcher
        owns the folder.
        """
        self._make_folders()
        with _open_lock(self.path / "launcher.lock") as own, _open_lock(self._parts_lock) as parts:
            if not _try_lock(own):
                raise FolderInUse(self._who())
            self._service_file.unlink(missing_ok=True)
            self._outlive_orphans(parts)
            try:
                yield parts
            finally:
                self._service_file.unlink(missing_ok=True)

    def _make_folders(self) -> None:
        # A version before let others look into its folder. One that is not ours is left as it is.
        if (self.path / "launcher.lock").exists():
            self.path.chmod(0o700)
        for folder in (self.path, self.logs, self.broker):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def remember_group(self, group: int) -> None:
        """Write down the parts' process group, for a later launcher that may have to end it."""
        self._parts_lock.write_text(f"{group}\n")

    def announce(self, url: str) -> None:
        """Write `service.json` with `url` and `pid`; a reader sees all of it or no file."""
        aside = self._service_file.with_suffix(".part")
        aside.write_text(json.dumps({"url": url, "pid": os.getpid()}) + "\n")
        aside.rename(self._service_file)

    @property
    def _parts_lock(self) -> Path:
        return self.path / "parts.lock"

    def _who(self) -> str:
        where = "it is just starting or stopping"
        if self._service_file.exists():
            service = json.loads(self._service_file.read_text())
            where = f"{service['url']}, process {service['pid']}"
        return (
            f"a service already runs on {self.path} ({where}): "
            "stop it, or choose another folder with --data-dir"
        )

    def _outlive_orphans(self, parts: IO[str]) -> None:
        deadline = time.monotonic() + LEFTOVERS_S
        killed = False
        while not _try_lock(parts):
            if time.monotonic() > deadline:
                if killed:
                    raise FolderInUse(
                        f"parts of an earlier service on {self.path} cannot be ended: "
                        f"see which processes hold {self._parts_lock}"
                    )
                # The held lock proves that the group still has a member, so its id is not reused.
                os.killpg(int(self._parts_lock.read_text()), signal.SIGKILL)
                killed, deadline = True, deadline + LEFTOVERS_S
            time.sleep(_POLL_S)


def _open_lock(path: Path) -> IO[str]:
    return path.open("a+", encoding="ascii")


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
