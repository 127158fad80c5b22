"""Reads images and labels that are stored as arrays, some rows at a time."""

from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from atmc_core.data.collector import Collector, Reading, check_size
from atmc_core.data.sets import SPLITS
from atmc_core.data.source import Source
from atmc_core.data.spool import PART_BYTES
from atmc_core.errors import InvalidInput
from atmc_spec.datasets.arrays import wrong_images, wrong_labels


class Rows(Protocol):
    """An array that need not be in memory as a whole."""

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """The type of the entries."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole array."""

    def parts(self, size: int) -> Iterator[NDArray[np.generic]]:
        """Yield the whole array in order, ``size`` rows at a time."""


class WholeArray:
    """``Rows`` of an array that is in memory."""

    def __init__(self, array: NDArray[np.generic]) -> None:
        self.array, self.dtype, self.shape = array, array.dtype, array.shape

    def parts(self, size: int) -> Iterator[NDArray[np.generic]]:
        for start in range(0, len(self.array), size):
            yield self.array[start : start + size]


def read_arrays(arrays: Mapping[str, Rows], reading: Reading) -> Source:
    """Read the splits from arrays.

    Args:
        arrays: ``x_train`` and ``y_train``, and the same with ``val`` and ``test`` if there are
            such splits. Images are uint8 ``[N, H, W, C]`` or ``[N, H, W]``, labels integers
            ``[N]`` or ``[N, 1]``.
        reading: how the data set is read.

    Raises:
        InvalidInput: ``bad_array``, ``empty_split`` or ``dataset_too_large``, with the array's
            name.
    """
    collector = Collector(reading)
    for name in SPLITS:
        if name == "train" or f"x_{name}" in arrays or f"y_{name}" in arrays:
            images, labels = _checked(arrays, name)
            _collect(collector, images, labels, name)
    return Source(collector.splits())


def _checked(arrays: Mapping[str, Rows], name: str) -> tuple[Rows, Rows]:
    """The images and the labels of one split, after a check of their shapes and types."""
    for key in (f"x_{name}", f"y_{name}"):
        if key not in arrays:
            raise InvalidInput("bad_array", f"{key} is missing; found: {', '.join(arrays)}", key)
    images, labels = arrays[f"x_{name}"], arrays[f"y_{name}"]
    for key, wrong in (
        (f"x_{name}", wrong_images(f"x_{name}", str(images.dtype), images.shape)),
        (f"y_{name}", wrong_labels(f"y_{name}", str(labels.dtype), labels.shape)),
    ):
        if wrong:
            raise InvalidInput("bad_array", wrong, key)
    if labels.shape[0] != images.shape[0]:
        raise InvalidInput(
            "bad_array",
            f"y_{name} has {labels.shape[0]} labels for {images.shape[0]} images in x_{name}",
            f"y_{name}",
        )
    if not images.shape[0]:
        raise InvalidInput("empty_split", f"the {name} split holds no images", f"x_{name}")
    if 0 in (*images.shape, *labels.shape):
        raise InvalidInput("bad_array", f"x_{name} is {list(images.shape)}", f"x_{name}")
    return images, labels


def _collect(collector: Collector, images: Rows, labels: Rows, name: str) -> None:
    count, height, width = images.shape[:3]
    row_bytes = height * width * (images.shape[3] if len(images.shape) == 4 else 1)
    check_size(count * row_bytes)
    collector.expect(count)
    values = np.concatenate(list(labels.parts(count))).astype(np.int64).reshape(-1)
    start, size = 0, max(1, PART_BYTES // row_bytes)
    for part in images.parts(size):
        nhwc = part.reshape(len(part), height, width, -1)
        nchw = nhwc.transpose(0, 3, 1, 2).astype(np.uint8, copy=False)
        stop = start + len(part)
        collector.extend(name, nchw, values[start:stop].tolist(), f"x_{name}")
        start = stop
