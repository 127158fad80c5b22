"""Reads the members of an untrusted zip file, and checks their names and sizes."""

import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from atmc_core.errors import InvalidInput

#: The largest number of members.
MAX_MEMBERS = 5_000_000
# Members are read in parts of this many bytes.
_PART = 2**22
# Files that macOS and Windows add by themselves.
_LITTER = ("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini")


class Archive:
    """A zip file that is read member by member; nothing is unpacked to disk.

    Args:
        path: the zip file.

    Raises:
        InvalidInput: ``malformed_dataset`` if it is no zip file, or a member's name leads out of
            the archive, or a member is a link or encrypted.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise _malformed(f"it is not a whole zip file ({error})") from error
        members = self._zip.infolist()
        if len(members) > MAX_MEMBERS:
            raise _malformed(f"it has {len(members)} members")
        for member in members:
            _check(member)
        self.members = {m.filename: m for m in members if not m.is_dir() and not _is_litter(m)}

    def names(self) -> Iterator[str]:
        """The names of the files, sorted, so that the order inside the zip does not matter."""
        yield from sorted(self.members)

    def read(self, name: str, limit: int) -> bytes:
        """The content of a member.

        Raises:
            InvalidInput: ``malformed_dataset`` if it is broken or has more than ``limit`` bytes.
        """
        return b"".join(self.parts(name, limit))

    def parts(self, name: str, limit: int) -> Iterator[bytes]:
        """Yield the content of a member, a few MiB at a time; errors as in ``read``."""
        count = 0
        try:
            with self._zip.open(self.members[name]) as file:
                while part := file.read(_PART):
                    count += len(part)
                    if count > limit:
                        raise _malformed(f"{name[:120]!r} has more than {limit:,} bytes", name)
                    yield part
        except InvalidInput:
            raise
        except (
            zipfile.BadZipFile,
            zlib.error,
            OSError,
            EOFError,
            ValueError,
            RuntimeError,
            NotImplementedError,
        ) as error:
            raise _malformed(f"{name[:120]!r} is broken ({error})", name) from error


def _is_litter(member: zipfile.ZipInfo) -> bool:
    parts = PurePosixPath(member.filename).parts
    return any(part in _LITTER or part.startswith("._") for part in parts)


def _check(member: zipfile.ZipInfo) -> None:
    name = member.filename
    if not name:
        raise _malformed("a member has no name")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise _malformed(f"the name {name[:120]!r} leads out of the archive", name)
    if stat.S_ISLNK(member.external_attr >> 16):
        raise _malformed(f"{name[:120]!r} is a symbolic link; send the file itself", name)
    if member.flag_bits & 1:
        raise _malformed(f"{name[:120]!r} is encrypted", name)


def _malformed(reason: str, param: str | None = None) -> InvalidInput:
    return InvalidInput(
        "malformed_dataset", f"the zip cannot be used: {reason}", param and param[:120]
    )
