"""Reads the array headers of an `.npz` data set; the arrays themselves stay packed."""

import io
import math
import tokenize
from collections.abc import Mapping

from numpy.lib import format as npy

from api.inspection.archives import UntrustedArchive
from api.inspection.headers import ArrayHeader, is_shape
from api.problems import Problem
from api.text import clip
from atmc_spec.datasets.arrays import wrong_images, wrong_labels

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


def read_npz_header(
    archive: UntrustedArchive, members: Mapping[str, str]
) -> dict[str, ArrayHeader]:
    """Return type and shape of each array of a data set.

    `members` has the names of the `.npy` files by their arrays' names. Raises `malformed_dataset`,
    `object_array` or `bad_array`, the latter with the array's name as `param`.
    """
    arrays = {}
    for name, member in members.items():
        if name not in REQUIRED + OPTIONAL:
            raise _bad(name, f"{clip(name)!r} is not an array of a data set")
        arrays[name] = _read_array_header(archive, member, name)
    check_splits(arrays)
    return arrays


def check_splits(arrays: Mapping[str, ArrayHeader]) -> None:
    """Check types and shapes of the arrays of a data set, of which others are not looked at.

    Images are uint8 `[N, H, W]` or `[N, H, W, C]`, labels are integers `[N]` or `[N, 1]`. That the
    splits are not empty and fit the model is the job's to check. Raises `bad_array` with the
    array's name as `param`.
    """
    _check_names(arrays)
    for x, y in (("x_train", "y_train"), ("x_val", "y_val"), ("x_test", "y_test")):
        if x in arrays:
            _check_split(arrays, x, y)


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


def _check_names(arrays: Mapping[str, ArrayHeader]) -> None:
    pairs = ((f"x_{name[2:]}", f"y_{name[2:]}") for name in OPTIONAL if name in arrays)
    for name in (*REQUIRED, *(each for pair in pairs for each in pair)):
        if name not in arrays:
            found = clip(", ".join(arrays), 300) or "no array"
            raise _bad(name, f"{name!r} is missing, the file has {found}")


def _check_split(arrays: Mapping[str, ArrayHeader], x: str, y: str) -> None:
    images, labels = arrays[x], arrays[y]
    if wrong := wrong_images(x, images.dtype, images.shape):
        raise _bad(x, wrong)
    if wrong := wrong_labels(y, labels.dtype, labels.shape):
        raise _bad(y, wrong)
    if images.shape[0] != labels.shape[0]:
        raise _bad(y, f"{y!r} has {labels.shape[0]} labels for {images.shape[0]} images in {x!r}")


def _bad(param: str, reason: str) -> Problem:
    return Problem(
        "bad_array",
        f"{reason}. A data set has {', '.join(REQUIRED)} and optionally {', '.join(OPTIONAL)}.",
        clip(param),
    )
