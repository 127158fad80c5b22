"""A limit on how much of an untrusted file its own header may make us read."""

from typing import BinaryIO

from api.problems import Problem


class LimitedReader:
    """A seekable view of `file` from which at most `max_bytes` can be read in all.

    Sizes and offsets in a header are the uploader's claims. Whatever they say, a library that
    reads through this object raises `refusal` before it has read, and so held, more.
    """

    def __init__(self, file: BinaryIO, max_bytes: int, refusal: Problem) -> None:
        self._file = file
        self._left = max_bytes
        self._refusal = refusal
        self.size = file.seek(0, 2)
        file.seek(0)

    def read(self, size: int = -1) -> bytes:
        """Read as the file does; raises the refusal instead if that went past the limit."""
        rest = max(0, self.size - self._file.tell())
        wanted = rest if size < 0 else min(size, rest)
        if wanted > self._left:
            raise self._refusal
        self._left -= wanted
        return self._file.read(wanted)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move as the file does, which counts for nothing."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Tell the position in the file."""
        return self._file.tell()

    def seekable(self) -> bool:
        """Return True: a library need not read in order."""
        return True

    def close(self) -> None:
        """Do nothing: whoever opened the file closes it."""
