"""Reads the array headers of an `.npz` data set; the arrays themselves stay packed."""

import io
import math
import tokenize
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from api.inspection.archives import UntrustedArchive
from api.inspection.headers import ArrayHeader, is_shape
from api.problems import Problem
from api.text import clip

REQUIRED = ("x_train", "y_train")
OPTIONAL = ("x_test", "y_test", "x_val", "y_val")

# numpy writes 128 bytes; a Python literal any longer is not a plain array's.
_MAX_NPY_HEADER = 1024

# numpy and ast.literal_eval raise these for something that is no header.
_UNREADABLE = (
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
    MemoryError,
    RecursionError,
    SyntaxError,
    tokenize.TokenError,
)


def read_npz_header(file: BinaryIO, max_inflated_bytes: int) -> dict[str, ArrayHeader]:
    """Return type and shape of each array of a data set.

    Raises `malformed_dataset`, `dataset_too_large`, `object_array` or `bad_array`, the latter
    with the array's name as `param`. Images are uint8 `[N, H, W]` or `[N, H, W, C]`, labels are
    integers `[N]`. That the splits are not empty and fit the model is the job's to check.
    """
    archive = UntrustedArchive(file, code="malformed_dataset", what=".npz file")
    arrays = {}
    inflated = sum(member.file_size for member in archive.members.values())
    if inflated > max_inflated_bytes:
        raise Problem(
            "dataset_too_large",
            f"The data set takes {inflated} bytes once unpacked, {max_inflated_bytes} are allowed. "
            "Send fewer images.",
        )
    for member in archive.members:
        name = member.removesuffix(".npy")
        if name not in REQUIRED + OPTIONAL:
            raise _bad(name, f"{clip(name)!r} is not an array of a data set")
        arrays[name] = _read_array_header(archive, member, name)
    _check_names(arrays)
    for suffix in sorted(name[2:] for name in arrays if name.startswith("x_")):
        _check_split(arrays, f"x_{suffix}", f"y_{suffix}")
    return arrays


def _read_array_header(archive: UntrustedArchive, member: str, name: str) -> ArrayHeader:
    head = io.BytesIO(archive.read(member, 2 * _MAX_NPY_HEADER))
    try:
        version = npy.read_magic(head)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(head, max_header_size=_MAX_NPY_HEADER)
    except _UNREADABLE as error:
        raise archive.malformed(
            f"{name!r} is not a numpy array ({clip(str(error))})", name
        ) from error
    if dtype.hasobject:
        raise Problem(
            "object_array",
            f"{name!r} holds Python objects, and loading these could run code. Convert it to a "
            "number type first, for instance array.astype('uint8').",
            name,
        )
    if not is_shape(shape):
        raise archive.malformed(f"{name!r} has an impossible shape", name)
    expected = head.tell() + math.prod(shape) * dtype.itemsize
    if archive.members[member].file_size != expected:
        raise archive.malformed(
            f"{name!r} should take {expected} bytes by its shape {list(shape)} and dtype {dtype}, "
            f"and has {archive.members[member].file_size}",
            name,
        )
    return ArrayHeader(str(dtype), shape)


def _check_names(arrays: dict[str, ArrayHeader]) -> None:
    pairs = ((f"x_{name[2:]}", f"y_{name[2:]}") for name in OPTIONAL if name in arrays)
    for name in (*REQUIRED, *(each for pair in pairs for each in pair)):
        if name not in arrays:
            raise _bad(name, f"{name!r} is missing, the file has {', '.join(arrays) or 'no array'}")


def _check_split(arrays: dict[str, ArrayHeader], x: str, y: str) -> None:
    images, labels = arrays[x], arrays[y]
    if images.dtype != "uint8" or len(images.shape) not in (3, 4):
        raise _bad(x, f"{x!r} is {_describe(images)}; expected uint8 [N, H, W] or [N, H, W, C]")
    if not np.issubdtype(np.dtype(labels.dtype), np.integer) or len(labels.shape) != 1:
        raise _bad(y, f"{y!r} is {_describe(labels)}; expected integers [N]")
    if images.shape[0] != labels.shape[0]:
        raise _bad(y, f"{y!r} has {labels.shape[0]} labels for {images.shape[0]} images in {x!r}")


def _describe(array: ArrayHeader) -> str:
    return f"{array.dtype} {list(array.shape)}"


def _bad(param: str, reason: str) -> Problem:
    return Problem(
        "bad_array",
        f"{reason}. A data set has {', '.join(REQUIRED)} and optionally {', '.join(OPTIONAL)}.",
        clip(param),
    )
