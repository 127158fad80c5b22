"""Opens an untrusted zip archive: its directory is checked before any member is trusted."""

import struct
import zipfile
import zlib
from typing import BinaryIO

from api.inspection.limits import LimitedReader
from api.problems import Problem
from api.text import clip

# The directory and the headers together may be this large.
MAX_READ_BYTES = 24 * 2**20
MAX_MEMBERS = 200_000

_ENCRYPTED = 0x1

# Methods of compression that some tools choose, by their numbers in a zip file.
_METHODS = {9: "Deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "xz"}

# zipfile and zlib raise these, beside BadZipFile, when sizes, offsets, names or streams are lies.
_UNREADABLE = (
    zipfile.BadZipFile,
    NotImplementedError,
    EOFError,
    OSError,
    OverflowError,
    ValueError,
    struct.error,
    zlib.error,
)


class UntrustedArchive:
    """The members of a zip file by name, each verified to lie inside the file and to be readable.

    Every refusal is a Problem with the given `code`; `what` names the file in its message. Names
    that differ by case only are refused where that is ignored by some who read such a file.
    """

    def __init__(self, file: BinaryIO, *, code: str, what: str, ignores_case: bool = True) -> None:
        self._code = code
        self._what = what
        too_much = self.malformed(
            f"its directory and headers take more than {MAX_READ_BYTES} bytes"
        )
        reader = LimitedReader(file, MAX_READ_BYTES, too_much)
        try:
            self._zip = zipfile.ZipFile(reader)
        except _UNREADABLE as error:
            raise self.malformed(f"it is not a whole zip file ({clip(str(error))})") from error
        count = len(self._zip.infolist())
        if count > MAX_MEMBERS:
            raise self.malformed(
                f"it has {count} members, {MAX_MEMBERS} are allowed; send images as Parquet or as "
                "arrays"
            )
        self.members: dict[str, zipfile.ZipInfo] = {}
        folded: dict[str, str] = {}
        for member in self._zip.infolist():
            self._check(member, reader.size)
            # Zip readers differ in which of two equal names they find, some ignoring the case.
            name = member.filename.casefold() if ignores_case else member.filename
            if (other := folded.setdefault(name, member.filename)) != member.filename:
                raise self.malformed(
                    f"the members {clip(other)!r} and {clip(member.filename)!r} differ by case only"
                )
            if member.filename in self.members:
                raise self.malformed(f"the member {clip(member.filename)!r} occurs twice")
            self.members[member.filename] = member

    def read(self, name: str, limit: int) -> bytes:
        """Return at most the first `limit` bytes of a member, inflating no more than these."""
        try:
            with self._zip.open(self.members[name]) as member:
                return member.read(limit)
        except _UNREADABLE as error:
            raise self.malformed(f"{clip(name)!r} cannot be read ({clip(str(error))})") from error

    def malformed(self, reason: str, param: str | None = None) -> Problem:
        """Return the refusal of this file."""
        return Problem(self._code, f"The {self._what} cannot be read: {reason}.", param)

    def _check(self, member: zipfile.ZipInfo, file_bytes: int) -> None:
        name = clip(member.filename)
        if member.flag_bits & _ENCRYPTED:
            raise self.malformed(f"the member {name!r} is encrypted; write it without a password")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise self.malformed(
                f"the member {name!r} is compressed by an unusual method "
                f"({_METHODS.get(member.compress_type, member.compress_type)}); pack it by deflate"
            )
        if member.header_offset + member.compress_size > file_bytes:
            raise self.malformed(
                f"the member {name!r} reaches past the end of the file: truncated?"
            )
        if not _is_possible(member):
            raise self.malformed(
                f"the member {name!r} claims {member.file_size} bytes, which its "
                f"{member.compress_size} stored bytes cannot hold"
            )


def _is_possible(member: zipfile.ZipInfo) -> bool:
    if member.compress_type == zipfile.ZIP_STORED:
        return member.file_size == member.compress_size
    # Deflate cannot do better than 258 bytes out of two bits.
    return member.file_size <= 1032 * member.compress_size
