"""Tells the forms of a data set apart by content, and looks into each as far as headers go."""

from typing import BinaryIO

from api.inspection.archives import UntrustedArchive
from api.inspection.headers import ArrayHeader
from api.inspection.npz import read_npz_header
from api.inspection.safetensors_header import read_safetensors_header
from api.problems import Problem

_NUMPY_TYPES = {
    "U8": "uint8",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
}


def read_dataset_header(file: BinaryIO, max_inflated_bytes: int) -> dict[str, ArrayHeader]:
    """Return type and shape of each array, none for a file of encoded images.

    `.npz` and safetensors hold arrays; Parquet, and a zip of class folders, idx or Parquet files,
    hold images, which the job decodes. Raises `malformed_dataset`, `dataset_too_large`,
    `object_array` or `bad_array`.
    """
    head = file.read(9)
    file.seek(0)
    if head[:4] == b"PAR1":
        _check_parquet(file)
        return {}
    if head[4:] == b"\0\0\0\0{":
        return _safetensors(file)
    if not head.startswith(b"PK\x03\x04"):
        return read_npz_header(file, max_inflated_bytes)
    archive = UntrustedArchive(file, code="malformed_dataset", what="zip file")
    if not archive.members or any(name.endswith(".npy") for name in archive.members):
        return read_npz_header(file, max_inflated_bytes)
    inflated = sum(member.file_size for member in archive.members.values())
    if inflated > max_inflated_bytes:
        detail = f"The files take {inflated} bytes unpacked, {max_inflated_bytes} are allowed."
        raise Problem("dataset_too_large", detail)
    return {}


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
    return {
        name: ArrayHeader(_NUMPY_TYPES.get(tensor.dtype, tensor.dtype), tensor.shape)
        for name, tensor in tensors.items()
    }
