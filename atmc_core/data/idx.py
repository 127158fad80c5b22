"""MNIST's idx files, four of them in a zip, gzipped or not."""

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
_UNSIGNED_BYTE = 8
_MAX_DIMENSIONS = 4
_MAX_HEADER = 4 + 4 * _MAX_DIMENSIONS
_SPLITS = {"train": "train", "t10k": "test", "test": "test", "val": "val"}
_KINDS: Mapping[str, str] = {"images": "x", "labels": "y"}


def is_idx(name: str) -> bool:
    """Whether a member's name is that of an idx file, as MNIST's are called."""
    return "idx" in name.rsplit("/", 1)[-1]


def read_idx(archive: Archive, reading: Reading) -> Source:
    """Read ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, and ``t10k-...`` likewise.

    Raises:
        InvalidInput: ``malformed_dataset`` or ``bad_array``, naming the member.
    """
    arrays: dict[str, Rows] = {}
    for member in archive.names():
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
    """The array's shape, and where its values begin."""
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] != _UNSIGNED_BYTE:
        raise _bad(member, "it does not begin as an idx file of unsigned bytes")
    ndim = head[3]
    start = 4 + 4 * ndim
    if not 1 <= ndim <= _MAX_DIMENSIONS or len(head) < start:
        raise _bad(member, f"it has {ndim} dimensions")
    return np.frombuffer(head, ">u4", ndim, 4).tolist(), start


def _inflated(content: bytes, member: str, limit: int) -> bytes:
    """The first ``limit`` bytes, at most, of what may be gzipped."""
    if content[:2] != b"\x1f\x8b":
        return content[:limit]
    try:
        return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(content, limit)
    except zlib.error as error:
        raise _bad(member, f"it is no gzip file ({error})") from error


def _bad(member: str, reason: str) -> InvalidInput:
    return InvalidInput(
        "malformed_dataset", f"{member[:120]!r} cannot be used: {reason}", member[:120]
    )
