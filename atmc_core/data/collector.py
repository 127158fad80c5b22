"""Decoded images of one size, split by split, on their way from a file to a memory map."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from atmc_core.data.sets import Split
from atmc_core.data.spool import Spool
from atmc_core.errors import InvalidInput

#: Of all decoded images together.
MAX_BYTES = 48 * 2**30


@dataclass(frozen=True)
class Reading:
    """How a data set is read.

    Attributes:
        channels: of encoded images, as the network takes them; by default RGB.
        folder: where decoded images are kept; by default the system's for temporary files.
        told: called with the number of images so far, and that of those there are, after every one
            or few.
    """

    channels: int | None = None
    folder: Path | None = None
    told: Callable[[int, int], None] = lambda done, of: None


class Collector:
    """Takes images, one or many at a time, whatever they are read from."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self._spools: dict[str, Spool] = {}
        self._labels: dict[str, list[int]] = {}
        self._first: tuple[tuple[int, ...], str] | None = None
        self._bytes = self._count = self._expected = 0

    def expect(self, count: int) -> None:
        """So many more images are there to be read."""
        self._expected += count

    def add(self, split: str, image: NDArray[np.uint8], label: int, name: str) -> None:
        """Take the image ``[C, H, W]``; ``name`` is what it is called in a message.

        Raises:
            InvalidInput: as ``extend``.
        """
        self.extend(split, image[None], [label], name)

    def extend(self, split: str, images: NDArray[np.uint8], labels: list[int], name: str) -> None:
        """Take the images ``[N, C, H, W]``.

        Raises:
            InvalidInput: ``image_shape_mismatch`` if the sizes differ, ``dataset_too_large``.
        """
        if self._first is None:
            self._first = (images.shape[1:], name)
        shape, first = self._first
        if images.shape[1:] != shape:
            raise InvalidInput(
                "image_shape_mismatch",
                f"{name[:120]!r} is {list(images.shape[1:])} and {first[:120]!r} {list(shape)} "
                "(channels, height, width): make all images one size, the network's",
                name[:120],
            )
        self._bytes += images.nbytes
        check_size(self._bytes)
        if split not in self._spools:
            self._spools[split] = Spool(self.reading.folder)
        self._spools[split].add(images)
        self._labels.setdefault(split, []).extend(labels)
        self._count += len(images)
        self.reading.told(self._count, self._expected)

    def splits(self) -> Mapping[str, Split]:
        """All that was taken.

        Raises:
            InvalidInput: ``empty_split`` if there is no train split.
        """
        if "train" not in self._spools:
            raise InvalidInput("empty_split", "there are no training images", "train")
        return {
            name: Split(
                spool.images(), torch.tensor(self._labels[name], dtype=torch.int64), mapped=True
            )
            for name, spool in self._spools.items()
        }


def check_size(size: int) -> None:
    """Refuse what takes more bytes than we handle.

    Raises:
        InvalidInput: ``dataset_too_large``.
    """
    if size > MAX_BYTES:
        raise InvalidInput(
            "dataset_too_large",
            f"the images take more than {MAX_BYTES:,} bytes decoded: send fewer",
            "dataset",
        )
