"""Decoded images of one size, split by split, within a bound of memory."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from atmc_core.data.sets import Split
from atmc_core.errors import InvalidInput

#: Of all decoded images together.
MAX_BYTES = 16 * 2**30


class Collector:
    """Takes images one by one, whatever they are read from."""

    def __init__(self) -> None:
        self._images: dict[str, list[NDArray[np.uint8]]] = {}
        self._labels: dict[str, list[int]] = {}
        self._first: tuple[tuple[int, ...], str] | None = None
        self._bytes = 0

    def add(self, split: str, image: NDArray[np.uint8], label: int, name: str) -> None:
        """Take the image ``[C, H, W]``; ``name`` is what it is called in a message.

        Raises:
            InvalidInput: ``image_shape_mismatch`` if the sizes differ, ``dataset_too_large``.
        """
        if self._first is None:
            self._first = (image.shape, name)
        shape, first = self._first
        if image.shape != shape:
            raise InvalidInput(
                "image_shape_mismatch",
                f"{name[:120]!r} is {list(image.shape[1:])} and {first[:120]!r} {list(shape[1:])} "
                "(height, width): resize all images to the size that the network takes",
                name[:120],
            )
        self._bytes += image.nbytes
        if self._bytes > MAX_BYTES:
            raise InvalidInput(
                "dataset_too_large",
                f"the images take more than {MAX_BYTES:,} bytes decoded: send fewer",
                "dataset",
            )
        self._images.setdefault(split, []).append(image)
        self._labels.setdefault(split, []).append(label)

    def splits(self) -> Mapping[str, Split]:
        """All that was taken.

        Raises:
            InvalidInput: ``empty_split`` if there is no train split.
        """
        if "train" not in self._images:
            raise InvalidInput("empty_split", "there are no training images", "train")
        return {
            name: Split(
                torch.from_numpy(np.stack(images)),
                torch.tensor(self._labels[name], dtype=torch.int64),
            )
            for name, images in self._images.items()
        }
