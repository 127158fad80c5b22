"""Reads the members of an untrusted zip or tar file, and checks their names and sizes."""

import stat
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from atmc_core.errors import InvalidInput
from atmc_spec.datasets.members import clean_name, is_ignored

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
        folders: the names of the folders that the archive has entries for, without the slash.
    """

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        self.folders: list[str] = []

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

    def _found(self, raw: str, size: int, *, is_folder: bool) -> str | None:
        """Take a member up; returns its clean name, or None for one that is not seen."""
        name = clean_name(raw)
        if is_ignored(name):
            return None
        if is_folder or name.endswith("/"):
            self.folders.append(name.rstrip("/"))
            return None
        if name in self._sizes:
            raise _malformed(f"{name[:120]!r} is in it twice", name)
        if len(self._sizes) >= MAX_MEMBERS:
            raise _malformed(f"it has more than {MAX_MEMBERS:,} members")
        self._sizes[name] = size
        return name


class ZipArchive(Archive):
    """A zip file.

    Args:
        path: the zip file.

    Raises:
        InvalidInput: ``malformed_dataset`` if it is no zip file, or a member's name leads out of
            the archive, or a member is a link or encrypted.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise _malformed(f"it is not a whole zip file ({error})") from error
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in self._zip.infolist():
            name = self._found(member.filename, member.file_size, is_folder=member.is_dir())
            if name is not None:
                _check_zip(member)
                self._members[name] = member

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
        super().__init__()
        self._members: dict[str, tarfile.TarInfo] = {}
        guard = _HeaderGuard(file)
        try:
            self._list(guard)
        except InvalidInput:
            raise
        except (*_BROKEN, MemoryError, RecursionError) as error:
            raise _malformed(f"it is not a whole tar file ({error})") from error
        guard.left = None

    def _list(self, guard: "_HeaderGuard") -> None:
        self._tar = tarfile.TarFile(fileobj=guard, encoding="utf-8", errors="replace")  # type: ignore[arg-type]
        offset = -1
        while True:
            guard.left = _MAX_TAR_HEADER
            member = self._tar.next()
            if member is None:
                break
            # A size below zero leads back, and TarFile around in circles.
            if member.size < 0 or self._tar.offset <= offset:
                raise _malformed("a member claims a size below zero")
            offset = self._tar.offset
            # TarFile keeps every member, which is not needed here.
            self._tar.members = []  # type: ignore[attr-defined]
            name = self._found(member.name, member.size, is_folder=member.isdir())
            if name is not None:
                _check_tar(member)
                self._members[name] = member
        # TarFile ends without a word at a header that it cannot read.
        guard.seek(self._tar.offset)
        if guard.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise _malformed(f"the tar file breaks off behind {len(self._members):,} files")

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
        self.seek, self.tell = file.seek, file.tell

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
