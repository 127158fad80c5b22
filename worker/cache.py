"""Inputs that a host keeps: each is fetched once, whichever of its workers needs it.

A file lies under its tenant and its SHA-256, so nobody learns by the time that a job takes what
others have. A child is given a copy (which shares the disk's blocks where the file system can), for
it may write to what is in its folder; each copy is held against its hash.
"""

import fcntl
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from jobstore.blobs import known
from jobstore.database import Database
from jobstore.disk import Disk
from jobstore.errors import DiskFull
from jobstore.logs import brief
from jobstore.objects import digest_of
from jobstore.retry import TRANSIENT, GaveUp
from jobstore.settings import Settings

log = logging.getLogger(__name__)

# Linux's ioctl that has one file share another's blocks.
_FICLONE = 0x40049409
_LOCK_POLL_S = 0.1
# What a worker that was killed left half-fetched goes after so long.
_ABANDONED_S = 86_400.0
_TENDED_EVERY_S = 60.0


class WrongBytes(Exception):
    """The store gave other bytes than those of the digest."""


@dataclass(frozen=True)
class Kept:
    """A file that is kept, and when it was used last, by this host's clock."""

    path: Path
    bytes: int
    used: float

    @property
    def place(self) -> tuple[str, str]:
        """The tenant and the digest."""
        return self.path.parent.name, self.path.name


class InputCache:
    """The folder of kept inputs, which all workers of a host share."""

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.home / "kept-inputs"
        self._limit = settings.input_cache_bytes
        self._disk = Disk(settings)

    def fetch(
        self,
        tenant: str,
        sha256: str,
        to: Path,
        get: Callable[[Path], None],
        until: Callable[[], bool],
    ) -> None:
        """Put the file of this digest at `to`; `get` fetches it to a path, if it is not kept.

        Another process of this host that fetches it is waited for, `until` that is to stop. Raises
        `GaveUp` then, `WrongBytes`, and whatever `get` raises.
        """
        if not self._limit:
            _fetch_checked(sha256, to, get)
            return
        with self._lock(sha256, until):
            path = self._folder / tenant / sha256
            if self._copied(path, sha256, to):
                return
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            aside = path.with_name(f"{uuid4().hex}.part")
            try:
                _fetch_checked(sha256, aside, get)
                _copy(aside, to)
                if self._make_room(aside.stat().st_size):
                    aside.rename(path)
            finally:
                aside.unlink(missing_ok=True)

    def _copied(self, path: Path, sha256: str, to: Path) -> bool:
        """Copy a kept file and tell whether it was there, and what its name says."""
        try:
            _copy(path, to)
        except FileNotFoundError:
            return False
        if digest_of(to) != sha256:
            log.warning("a kept input was damaged and is fetched anew", extra={"path": path})
            path.unlink(missing_ok=True)
            return False
        with suppress(FileNotFoundError):
            os.utime(path)
        return True

    def clear(self) -> None:
        """Drop all that is kept, because the disk is full."""
        for each in self._kept():
            each.path.unlink(missing_ok=True)

    def tend(self, database: Database) -> None:
        """Drop what the service has deleted since, and what was left half-fetched."""
        kept = list(self._kept())
        if not kept:
            return
        with database.read() as session:
            there = known(session, {each.place for each in kept})
        for each in kept:
            if each.place not in there and not _is_new(each):
                each.path.unlink(missing_ok=True)

    def _make_room(self, bytes: int) -> bool:
        """Drop what was used least recently until so many bytes fit; tell whether they do.

        Then nothing of the limit is exceeded, nor of what is kept free of the disk.
        """
        kept = sorted(self._kept(), key=lambda each: each.used)
        # The new file is there already, under another name.
        total = sum(each.bytes for each in kept)
        while bytes <= self._limit and kept and (total > self._limit or not self._fits()):
            oldest = kept.pop(0)
            if oldest.path.suffix == ".part":
                continue
            oldest.path.unlink(missing_ok=True)
            total -= oldest.bytes
        return total <= self._limit and self._fits()

    def _fits(self) -> bool:
        try:
            self._disk.check()
        except DiskFull:
            return False
        return True

    def _kept(self) -> Iterator[Kept]:
        for path in self._folder.glob("*/*"):
            with suppress(FileNotFoundError):
                found = path.stat()
                yield Kept(path, found.st_size, found.st_mtime)

    @contextmanager
    def _lock(self, sha256: str, until: Callable[[], bool]) -> Iterator[None]:
        """Let one process of this host at a time fetch a file."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # One of 256 files, so that there are never more.
        with (self._folder / f"{sha256[:2]}.lock").open("a") as file:
            while not _try_lock(file.fileno()):
                if until():
                    raise GaveUp("waiting for an input that another worker fetches")
                time.sleep(_LOCK_POLL_S)
            yield


class Tending:
    """Keeps `InputCache.tend` going, in a thread of its own."""

    def __init__(self, cache: InputCache, database: Database, shutdown: threading.Event) -> None:
        self._cache, self._database, self._shutdown = cache, database, shutdown

    def begin(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._keep, name="kept inputs", daemon=True).start()

    def _keep(self) -> None:
        while not self._shutdown.wait(_TENDED_EVERY_S):
            try:
                self._cache.tend(self._database)
            except (*TRANSIENT, OSError) as error:
                log.warning("the kept inputs were not looked through: %s", brief(error))


def _is_new(each: Kept) -> bool:
    """Whether a file that no row names may still be on its way."""
    return each.path.suffix == ".part" and each.used > time.time() - _ABANDONED_S


def _fetch_checked(sha256: str, path: Path, get: Callable[[Path], None]) -> None:
    get(path)
    if digest_of(path) != sha256:
        path.unlink(missing_ok=True)
        raise WrongBytes(f"the store's bytes of {sha256} are others")


def _copy(source: Path, to: Path) -> None:
    """Copy a file, sharing the disk's blocks where the file system can; never a hard link."""
    with source.open("rb") as reader, to.open("wb") as writer:
        try:
            fcntl.ioctl(writer.fileno(), _FICLONE, reader.fileno())
        except OSError:
            shutil.copyfileobj(reader, writer, 1 << 20)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
