"""Reads the members of an untrusted zip or tar file, and checks their names and sizes."""

import stat
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from atmc_core.errors import InvalidInput
from atmc_spec.datasets.members import listing

#: The largest number of members.
MAX_MEMBERS = 5_000_000
# Members are read in parts of this many bytes.
_PART = 2**22
# One member's header in a tar archive, with its extensions, may take this many bytes.
_MAX_TAR_HEADER = 2**16
# The exceptions that reading a broken archive raises.
_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    NotImplementedError,
)


class Archive(ABC):
    """An archive that is read member by member; nothing is unpacked to disk.

    Members are called by their clean names (see ``clean_name``). Hidden ones, and those that file
    managers and the like leave behind, are not seen.

    Attributes:
        folders: the names of the folders, as in ``Listing``.
    """

    _sizes: Mapping[str, int]
    folders: tuple[str, ...]

    def names(self) -> Iterator[str]:
        """The names of the files, sorted, so that the order inside the archive does not matter."""
        yield from sorted(self._sizes)

    def size(self, name: str) -> int:
        """The number of bytes that a member claims to have; ``open`` gives no more."""
        return self._sizes[name]

    @abstractmethod
    def open(self, name: str) -> IO[bytes]:
        """A member as a file that can be sought in."""

    def read(self, name: str, limit: int) -> bytes:
        """The content of a member.

        Raises:
            InvalidInput: ``malformed_dataset`` if it is broken or has more than ``limit`` bytes.
        """
        return b"".join(self.parts(name, limit))

    def parts(self, name: str, limit: int) -> Iterator[bytes]:
        """Yield the content of a member, a few MiB at a time; errors as in ``read``."""
        count = 0
        with self.reading(name) as file:
            while part := file.read(_PART):
                count += len(part)
                if count > limit:
                    raise _malformed(f"{name[:120]!r} has more than {limit:,} bytes", name)
                yield part

    @contextmanager
    def reading(self, name: str) -> Iterator[IO[bytes]]:
        """A member as a file, as ``open`` gives it, whose errors are those of ``read``."""
        try:
            with self.open(name) as file:
                yield file
        except InvalidInput:
            raise
        except _BROKEN as error:
            raise _malformed(f"{name[:120]!r} is broken ({error})", name) from error


class ZipArchive(Archive):
    """A zip file.

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
        _check_count(len(members))
        found = listing(member.filename for member in members)
        self._members = {name: members[position] for name, position in found.files.items()}
        for member in self._members.values():
            _check_zip(member)
        self._sizes = {name: member.file_size for name, member in self._members.items()}
        self.folders = found.folders

    def open(self, name: str) -> IO[bytes]:
        return self._zip.open(self._members[name])


class TarArchive(Archive):
    """A tar file that is not compressed.

    Args:
        file: the tar file, open for reading; it is read as long as the archive is.

    Raises:
        InvalidInput: as for ``ZipArchive``.
    """

    def __init__(self, file: IO[bytes]) -> None:
        guard = _HeaderGuard(file)
        try:
            members = self._list(guard)
        except InvalidInput:
            raise
        except (*_BROKEN, MemoryError, RecursionError) as error:
            raise _malformed(f"it is not a whole tar file ({error})") from error
        guard.left = None
        found = listing(f"{each.name}/" if each.isdir() else each.name for each in members)
        self._members = {name: members[position] for name, position in found.files.items()}
        for member in self._members.values():
            _check_tar(member)
        self._sizes = {name: member.size for name, member in self._members.items()}
        self.folders = found.folders

    def _list(self, guard: "_HeaderGuard") -> list[tarfile.TarInfo]:
        self._tar = tarfile.TarFile(fileobj=guard, encoding="utf-8", errors="replace")  # type: ignore[arg-type]
        members: list[tarfile.TarInfo] = []
        while True:
            guard.left = _MAX_TAR_HEADER
            member = self._tar.next()
            if member is None:
                break
            # A size below zero leads back, and TarFile around in circles.
            if member.size < 0 or (members and member.offset <= members[-1].offset):
                raise _malformed("a member claims a size below zero")
            members.append(member)
            _check_count(len(members))
        # TarFile ends without a word at a header that it cannot read.
        guard.seek(self._tar.offset)
        if guard.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise _malformed(f"the tar file breaks off behind {len(members):,} members")
        return members

    def open(self, name: str) -> IO[bytes]:
        file = self._tar.extractfile(self._members[name])
        if file is None:
            raise _malformed(f"{name[:120]!r} is no file", name)
        return file


class _HeaderGuard:
    """A file of which no more than ``left`` bytes are read; all that are asked for if it is None.

    TarFile reads extended headers whole, however large they claim to be.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.left: int | None = _MAX_TAR_HEADER
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        """Read as the file does.

        Raises:
            InvalidInput: ``malformed_dataset`` if that is more than is left.
        """
        if self.left is not None:
            if not 0 <= size <= self.left:
                raise _malformed("the header of one of its members is too large")
            self.left -= size
        return self._file.read(size)


def _check_count(count: int) -> None:
    if count > MAX_MEMBERS:
        raise _malformed(f"it has more than {MAX_MEMBERS:,} members")


def _check_zip(member: zipfile.ZipInfo) -> None:
    name = member.filename
    if stat.S_ISLNK(member.external_attr >> 16):
        raise _malformed(f"{name[:120]!r} is a symbolic link; send the file itself", name)
    if member.flag_bits & 1:
        raise _malformed(f"{name[:120]!r} is encrypted", name)


def _check_tar(member: tarfile.TarInfo) -> None:
    name = member.name
    if member.issym() or member.islnk():
        what = "symbolic" if member.issym() else "hard"
        raise _malformed(f"{name[:120]!r} is a {what} link; send the file itself", name)
    if not member.isreg() or member.issparse():
        raise _malformed(f"{name[:120]!r} is no plain file", name)


def _malformed(reason: str, param: str | None = None) -> InvalidInput:
    return InvalidInput(
        "malformed_dataset", f"the archive cannot be used: {reason}", param and param[:120]
    )
