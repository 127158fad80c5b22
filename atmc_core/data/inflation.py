"""Inflates a compressed tar file to a file without a name, so that its members can be sought."""

import bz2
import gzip
import lzma
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from atmc_core.data.spool import disk_has_room
from atmc_core.errors import InvalidInput
from atmc_spec.datasets.kinds import XZ_MEMORY, Compression

#: The largest size of a tar file when it is inflated.
MAX_BYTES = 48 * 2**30
_PART = 2**22


def inflate(path: Path, compression: Compression, folder: Path | None) -> IO[bytes]:
    """The content of a compressed file, as a file that the system deletes when it is closed.

    Args:
        path: the compressed file.
        compression: how it is compressed.
        folder: the folder of the new file; by default the system's for temporary files.

    Raises:
        InvalidInput: ``malformed_dataset`` if the file is broken, ``dataset_too_large`` if it
            inflates to more than ``MAX_BYTES`` or than the disk has room for.
    """
    target = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
    count = 0
    try:
        with path.open("rb") as file:
            for part in _inflated(file, compression):
                count += len(part)
                if count > MAX_BYTES:
                    raise InvalidInput(
                        "dataset_too_large",
                        f"the tar file inflates to more than {MAX_BYTES:,} bytes",
                        "dataset",
                    )
                with disk_has_room(f"the {count:,} bytes of the inflated tar file take"):
                    target.write(part)
        with disk_has_room(f"the {count:,} bytes of the inflated tar file take"):
            target.flush()
    except BaseException:
        target.close()
        raise
    target.seek(0)
    return target


def _inflated(file: IO[bytes], compression: Compression) -> Iterator[bytes]:
    reader = _xz_parts if compression == "xz" else _parts
    try:
        yield from reader(file, compression)
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, MemoryError) as error:
        raise _broken(compression, str(error)) from error


def _parts(file: IO[bytes], compression: Compression) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=file) if compression == "gzip" else bz2.BZ2File(file) as inner:
        while part := inner.read(_PART):
            yield part


def _xz_parts(file: IO[bytes], compression: Compression) -> Iterator[bytes]:
    """As ``_parts``, with a limit on the memory that a header may claim."""
    left = b""
    while left := left or file.read(_PART):
        decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)
        while not decoder.eof:
            yield decoder.decompress(left, _PART)
            left = b""
            if decoder.needs_input and not decoder.eof and not (left := file.read(_PART)):
                raise EOFError("it ends early")
        left = decoder.unused_data.lstrip(b"\0")


def _broken(compression: Compression, reason: str) -> InvalidInput:
    return InvalidInput(
        "malformed_dataset",
        f"the file is not a whole one compressed by {compression} ({reason[:200]}): send it again",
        "dataset",
    )
