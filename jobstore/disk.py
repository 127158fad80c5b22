"""How much room the disks have on which the service itself writes, and what is kept free of it.

A full disk stops everybody: the database's writes, others' uploads, the jobs at work. So what can
wait is refused while there is still room for what cannot: `ATMC_RESERVED_BYTES`.
"""

import os
import shutil
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from jobstore.errors import DiskFull
from jobstore.settings import Settings

# A body of unknown length is held against the room whenever so much of it has come.
_LOOK_EVERY_BYTES = 4 << 20


class Disk:
    """The disks of the data folder, and of the store if that is a folder."""

    def __init__(self, settings: Settings) -> None:
        self._reserved = settings.reserved_bytes
        self._paths = [settings.home]
        parts = urlsplit(settings.store_url)
        if parts.scheme == "file":
            self._paths.append(Path(url2pathname(parts.path)))

    def free(self) -> int:
        """Return the bytes that this user may still write to the fuller one of the disks."""
        return min(shutil.disk_usage(_existing(path)).free for path in self._paths)

    def check(self, bytes: int = 0) -> None:
        """Raise `DiskFull` unless so many bytes fit beside what is kept free."""
        free = self.free()
        if self._reserved and free - bytes < self._reserved:
            raise DiskFull(free, self._reserved)

    async def watched(self, chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        """Yield the chunks; raises `DiskFull` once there is no room for more of them."""
        since = _LOOK_EVERY_BYTES
        async for chunk in chunks:
            since += len(chunk)
            if since >= _LOOK_EVERY_BYTES:
                self.check(len(chunk))
                since = 0
            yield chunk


def taken_by(folder: Path) -> int:
    """Return the bytes of disk that the files below a folder take; those that go are left out."""
    taken = 0
    # It leaves out folders that go meanwhile; `Path.rglob` raises.
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            with suppress(FileNotFoundError):
                taken += 512 * os.lstat(os.path.join(parent, name)).st_blocks
    return taken


def _existing(path: Path) -> Path:
    return next(each for each in (path, *path.parents) if each.exists())
