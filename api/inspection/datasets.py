"""Tells the forms of a data set apart by content, and looks into each as far as headers go."""

import stat
from collections.abc import Collection
from typing import BinaryIO

from api.inspection.archives import UntrustedArchive
from api.inspection.headers import ArrayHeader
from api.inspection.npz import check_splits, read_npz_header
from api.inspection.safetensors_header import read_safetensors_header
from api.problems import Problem
from api.text import clip
from atmc_spec import InvalidInput
from atmc_spec.datasets.kinds import (
    HEAD_BYTES,
    LONG_HEAD,
    compression_of,
    inflated,
    is_tar,
    unknown_file,
)
from atmc_spec.datasets.layout import class_folders, parquet_splits
from atmc_spec.datasets.members import array_name, form_of, listing, those_of

_NUMPY_TYPES = {
    "U8": "uint8",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
}


def read_dataset_header(file: BinaryIO, max_inflated_bytes: int) -> dict[str, ArrayHeader]:
    """Return type and shape of each array, none for a file of encoded images.

    `.npz` and safetensors hold arrays; Parquet, and an archive of class folders, idx or Parquet
    files, or CIFAR's pickles, hold images, which the job decodes. Of a zip the names are looked at,
    too; a tar is only recognised. Raises `malformed_dataset`, `dataset_too_large`, `object_array`
    or `bad_array`.
    """
    head = file.read(HEAD_BYTES)
    file.seek(0)
    try:
        if head[:4] == b"PAR1":
            _check_parquet(file)
            return {}
        if head[4:9] == b"\0\0\0\0{":
            return _safetensors(file)
        if head.startswith(b"PK\x03\x04"):
            return _zip(file, max_inflated_bytes)
        _check_tar(file, head, max_inflated_bytes)
    except InvalidInput as error:
        detail = f"The data set cannot be used: {clip(error.message, 900).rstrip('.')}."
        raise Problem(error.code, detail, error.param and clip(error.param)) from error
    return {}


def _zip(file: BinaryIO, max_inflated_bytes: int) -> dict[str, ArrayHeader]:
    archive = UntrustedArchive(file, code="malformed_dataset", what="zip file", ignores_case=False)
    names = list(archive.members)
    found = listing(names)
    members = {name: names[position] for name, position in found.files.items()}
    for name, member in members.items():
        if stat.S_ISLNK(archive.members[member].external_attr >> 16):
            raise archive.malformed(f"{clip(name)!r} is a symbolic link; send the file", clip(name))
    inflated_bytes = sum(member.file_size for member in archive.members.values())
    if inflated_bytes > max_inflated_bytes:
        detail = (
            f"The files take {inflated_bytes} bytes unpacked, {max_inflated_bytes} are allowed."
        )
        raise Problem("dataset_too_large", f"{detail} Send fewer images.")
    files = sorted(members)
    form = form_of(files)
    if form == "folders":
        class_folders(files, found.folders)
    elif form == "arrays":
        return read_npz_header(archive, _arrays(archive, those_of(form, files), members))
    elif form == "parquet":
        parquet_splits(those_of(form, files))
    elif form == "idx":
        those_of(form, files)
    return {}


def _arrays(
    archive: UntrustedArchive, found: Collection[str], members: dict[str, str]
) -> dict[str, str]:
    """The members that are arrays, by the arrays' names."""
    arrays = {array_name(name): members[name] for name in found}
    # Readers of arrays differ in whether they ignore the case.
    if len({name.casefold() for name in arrays}) < len(found):
        raise archive.malformed("two arrays have the same name, or names that differ by case only")
    return arrays


def _check_tar(file: BinaryIO, head: bytes, max_inflated_bytes: int) -> None:
    compression = compression_of(head)
    if compression:
        head = file.read(LONG_HEAD)
        if is_tar(inflated(head, compression)):
            return
    elif is_tar(head):
        size = file.seek(0, 2)
        if size > max_inflated_bytes:
            detail = f"The tar file takes {size} bytes, {max_inflated_bytes} are allowed."
            raise Problem("dataset_too_large", f"{detail} Send fewer images.")
        return
    raise unknown_file(head)


def _check_parquet(file: BinaryIO) -> None:
    size = file.seek(0, 2)
    file.seek(max(0, size - 4))
    if size < 12 or file.read(4) != b"PAR1":
        detail = "The Parquet file does not end as it began: truncated?"
        raise Problem("malformed_dataset", detail)


def _safetensors(file: BinaryIO) -> dict[str, ArrayHeader]:
    try:
        tensors = read_safetensors_header(file).tensors
    except Problem as problem:
        raise Problem("malformed_dataset", problem.detail, problem.param) from problem
    arrays = {
        name: ArrayHeader(_NUMPY_TYPES.get(tensor.dtype, tensor.dtype), tensor.shape)
        for name, tensor in tensors.items()
    }
    check_splits(arrays)
    return arrays
