"""Reads data sets that are arrays in an ``.npz`` or a safetensors file."""

import math
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from atmc_core.data.archive import Archive, ZipArchive
from atmc_core.data.arrays import WholeArray, read_arrays
from atmc_core.data.collector import Reading
from atmc_core.data.sets import DataSet
from atmc_core.data.source import Source, complete
from atmc_core.errors import InvalidInput
from atmc_spec.datasets.members import array_name, those_of

# NumPy's parser of the header, by the version of the .npy format.
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
# The exceptions that reading a broken file raises.
_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    ValueError,
    OSError,
    EOFError,
    NotImplementedError,
)


def load_npz(path: Path, *, validation_fraction: float, seed: int) -> DataSet:
    """Read ``x_train, y_train`` (and ``x_val, y_val, x_test, y_test``) from an ``.npz`` file.

    Images are uint8 ``[N, H, W, C]`` or ``[N, H, W]``, labels integers ``[N]``. Missing splits are
    cut from train, stratified by class. Nothing in the file is executed.

    Args:
        path: the file.
        validation_fraction: the share of train that a missing validation split gets.
        seed: seeds the choice of images for missing splits.

    Raises:
        InvalidInput: ``malformed_dataset``, ``bad_array`` or ``empty_split``, with the array's
            name.
    """
    archive = ZipArchive(path)
    members = those_of("arrays", archive.names())
    return complete(read_npz(archive, members, Reading()), validation_fraction, seed)


def read_npz(archive: Archive, members: list[str], reading: Reading) -> Source:
    """Read the splits of an ``.npz`` file, or of another archive of ``.npy`` files.

    Args:
        archive: the archive.
        members: the names of the ``.npy`` files in it; those in a folder are called without it.
        reading: how the data set is read.

    Raises:
        InvalidInput: as ``load_npz``.
    """
    named = {array_name(member): member for member in members}
    if len(named) < len(members):
        raise InvalidInput("malformed_dataset", "two arrays have the same name", "dataset")
    try:
        return read_arrays({n: _Member(archive, member) for n, member in named.items()}, reading)
    except (*_BROKEN, RuntimeError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput("malformed_dataset", f"the .npz cannot be read: {error}") from error


class _Member:
    """``Rows`` of an array in an ``.npz`` file, which are inflated as they are read."""

    def __init__(self, archive: Archive, name: str) -> None:
        self._archive, self._name = archive, name

    @cached_property
    def _header(self) -> tuple[tuple[int, ...], bool, np.dtype[np.generic], int]:
        """The shape, whether the order is Fortran's, the type, and where the content begins."""
        with self._archive.open(self._name) as file:
            version = npy.read_magic(file)
            if version not in _HEADERS:
                raise ValueError(f"{self._name} is of .npy version {version[0]}.{version[1]}")
            try:
                shape, columns_first, dtype = _HEADERS[version](file)
            except Exception as error:
                # NumPy parses headers as Python literals, so it raises what Python's parser raises.
                raise ValueError(f"{self._name} has no header that can be read") from error
            if dtype.hasobject:
                raise ValueError(f"{self._name} holds Python objects, which would be executed")
            return shape, columns_first, dtype, file.tell()

    @property
    def shape(self) -> tuple[int, ...]:
        return self._header[0]

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return self._header[2]

    def parts(self, size: int) -> Iterator[NDArray[np.generic]]:
        _, columns_first, _, begin = self._header
        if columns_first and len(self.shape) > 1:
            # The entries are not in the order of rows, so the whole array has to be read.
            with self._archive.open(self._name) as file:
                yield from WholeArray(npy.read_array(file, allow_pickle=False)).parts(size)
            return
        row_bytes = self.dtype.itemsize * math.prod(self.shape[1:])
        with self._archive.open(self._name) as file:
            file.seek(begin)
            for start in range(0, self.shape[0], size):
                shape = (min(size, self.shape[0] - start), *self.shape[1:])
                content = file.read(shape[0] * row_bytes)
                if len(content) < shape[0] * row_bytes:
                    raise EOFError(f"{self._name} ends early")
                yield np.frombuffer(content, self.dtype).reshape(shape)


def read_safetensors(path: Path, reading: Reading) -> Source:
    """Read the splits of a safetensors file with the same arrays; errors as in ``load_npz``."""
    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            return read_arrays({name: _Tensor(file, name) for name in names}, reading)
    except (SafetensorError, TypeError, KeyError, OSError) as error:
        message = f"the safetensors file cannot be read: {error}"
        raise InvalidInput("malformed_dataset", message) from error


class _Tensor:
    """``Rows`` of an array in a safetensors file."""

    def __init__(self, file: Any, name: str) -> None:
        self._rows = file.get_slice(name)
        self.shape: tuple[int, ...] = tuple(self._rows.get_shape())

    @property
    def dtype(self) -> np.dtype[np.generic]:
        found: np.dtype[np.generic] = self._rows[:0].dtype
        return found

    def parts(self, size: int) -> Iterator[NDArray[np.generic]]:
        for start in range(0, self.shape[0], size):
            yield self._rows[start : min(start + size, self.shape[0])]
