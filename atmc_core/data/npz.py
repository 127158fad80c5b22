"""Arrays in an ``.npz`` or a safetensors file."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from atmc_core.data.sets import SPLITS, DataSet, Split
from atmc_core.data.source import Source, complete
from atmc_core.errors import InvalidInput


def load_npz(path: Path, *, validation_fraction: float, seed: int) -> DataSet:
    """Read ``x_train, y_train`` (and ``x_val, y_val, x_test, y_test``) from an ``.npz`` file.

    Images are uint8 ``[N, H, W, C]`` or ``[N, H, W]``, labels integers ``[N]``. Splits that are not
    there are cut from train, stratified, by seed. Nothing in the file is executed.

    Raises:
        InvalidInput: ``malformed_dataset``, ``bad_array`` or ``empty_split``, naming the array.
    """
    return complete(read_npz(path), validation_fraction, seed)


def read_npz(path: Path) -> Source:
    """The splits of an ``.npz`` file; errors as in ``load_npz``."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return read_arrays(arrays)
    except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput("malformed_dataset", f"the .npz cannot be read: {error}") from error


def read_safetensors(path: Path) -> Source:
    """The splits of a safetensors file of the same arrays; errors as in ``load_npz``."""
    try:
        return read_arrays(safetensors.numpy.load_file(path))
    except (SafetensorError, TypeError, KeyError, OSError) as error:
        message = f"the safetensors file cannot be read: {error}"
        raise InvalidInput("malformed_dataset", message) from error


def read_arrays(arrays: Mapping[str, NDArray[np.generic]]) -> Source:
    """The splits that arrays by name make up."""
    splits = {
        name: _read_split(_arrays(arrays, name), name)
        for name in SPLITS
        if name == "train" or f"x_{name}" in arrays or f"y_{name}" in arrays
    }
    return Source(splits)


def _arrays(
    arrays: Mapping[str, NDArray[np.generic]], name: str
) -> tuple[NDArray[np.generic], ...]:
    """The images and the labels of one split."""
    for key in (f"x_{name}", f"y_{name}"):
        if key not in arrays:
            raise InvalidInput("bad_array", f"{key} is missing; found: {', '.join(arrays)}", key)
    return arrays[f"x_{name}"], arrays[f"y_{name}"]


def _read_split(pair: tuple[NDArray[np.generic], ...], name: str) -> Split:
    images, labels = pair
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise InvalidInput(
            "bad_array",
            f"x_{name} is {images.dtype} {list(images.shape)}: expected uint8 [N, H, W, C]",
            f"x_{name}",
        )
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise InvalidInput(
            "bad_array",
            f"y_{name} is {labels.dtype} {list(labels.shape)}: expected integers [{len(images)}]",
            f"y_{name}",
        )
    if not len(images):
        raise InvalidInput("empty_split", f"the {name} split holds no images", f"x_{name}")
    nhwc = images.reshape(*images.shape[:3], -1)
    nchw = np.ascontiguousarray(nhwc.transpose(0, 3, 1, 2))
    return Split(torch.from_numpy(nchw), torch.from_numpy(labels.astype(np.int64)))
