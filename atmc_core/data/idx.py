"""Reads an archive of idx files, MNIST's format; each file may be gzipped."""

import math
import zlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from atmc_core.data.archive import Archive
from atmc_core.data.arrays import Rows, WholeArray, read_arrays
from atmc_core.data.collector import Reading
from atmc_core.data.source import Source
from atmc_core.errors import InvalidInput

_MAX_BYTES = 2**30
# The number of the type unsigned byte in a header.
_UNSIGNED_BYTE = 8
_MAX_DIMENSIONS = 4
# A header is four bytes (two zeros, type, number of dimensions) and a 32-bit size per dimension.
_PREFIX_BYTES = _SIZE_BYTES = 4
_MAX_HEADER = _PREFIX_BYTES + _SIZE_BYTES * _MAX_DIMENSIONS
_GZIP_MAGIC = b"\x1f\x8b"
# Added to the window size, this makes zlib expect a gzip header.
_GZIP_HEADER = 16
_SPLITS = {"train": "train", "t10k": "test", "test": "test", "val": "val"}
_KINDS: Mapping[str, str] = {"images": "x", "labels": "y"}


def read_idx(archive: Archive, members: list[str], reading: Reading) -> Source:
    """Read the files ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte`` and ``t10k-...``.

    Args:
        archive: the archive.
        members: the names of the idx files in it.
        reading: how the data set is read.

    Raises:
        InvalidInput: ``malformed_dataset`` or ``bad_array``, with the member's name.
    """
    arrays: dict[str, Rows] = {}
    for member in members:
        base = member.rsplit("/", 1)[-1].lower()
        split = next((s for prefix, s in _SPLITS.items() if base.startswith(prefix)), None)
        kind = next((k for word, k in _KINDS.items() if word in base), None)
        if split is None or kind is None:
            raise _bad(member, "its name says neither split nor images or labels")
        array = _read(archive.read(member, _MAX_BYTES), member)
        arrays[f"{kind}_{split}"] = WholeArray(array)
    return read_arrays(arrays, reading)


def _read(content: bytes, member: str) -> NDArray[np.uint8]:
    shape, start = _header(_inflated(content, member, _MAX_HEADER), member)
    size = start + math.prod(shape)
    if size > _MAX_BYTES:
        raise _bad(member, f"its header claims {size:,} bytes")
    content = _inflated(content, member, size + 1)
    if len(content) != size:
        raise _bad(member, f"it does not have the {size - start:,} values of the shape {shape}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _header(head: bytes, member: str) -> tuple[list[int], int]:
    """The array's shape, and the position of its first value."""
    if len(head) < _PREFIX_BYTES or head[:2] != b"\0\0" or head[2] != _UNSIGNED_BYTE:
        raise _bad(member, "it does not begin as an idx file of unsigned bytes")
    ndim = head[3]
    start = _PREFIX_BYTES + _SIZE_BYTES * ndim
    if not 1 <= ndim <= _MAX_DIMENSIONS or len(head) < start:
        raise _bad(member, f"it has {ndim} dimensions")
    return np.frombuffer(head, ">u4", ndim, _PREFIX_BYTES).tolist(), start


def _inflated(content: bytes, member: str, limit: int) -> bytes:
    """The content, inflated if it is gzipped, up to ``limit`` bytes."""
    if content[:2] != _GZIP_MAGIC:
        return content[:limit]
    try:
        return zlib.decompressobj(_GZIP_HEADER + zlib.MAX_WBITS).decompress(content, limit)
    except zlib.error as error:
        raise _bad(member, f"it is no gzip file ({error})") from error


def _bad(member: str, reason: str) -> InvalidInput:
    return InvalidInput(
        "malformed_dataset", f"{member[:120]!r} cannot be used: {reason}", member[:120]
    )
