"""Collects decoded images from a file into memory maps, split by split."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from atmc_core.data.sets import Split
from atmc_core.data.spool import Spool
from atmc_core.errors import InvalidInput

#: The largest size of all decoded images together.
MAX_BYTES = 48 * 2**30
_MAX_LABEL = 2**63


@dataclass(frozen=True)
class Reading:
    """How a data set is read.

    Attributes:
        channels: the number of channels that encoded images are decoded to, 1 (grey) or 3 (RGB);
            by default 3.
        folder: the folder in which decoded images are kept; by default the system's for temporary
            files.
        told: a function that is called after every few images with the number of images so far and
            the number of all images.
    """

    channels: int | None = None
    folder: Path | None = None
    told: Callable[[int, int], None] = lambda done, of: None


class Collector:
    """Receives the images of a data set, one or many at a time; all must have the same shape.

    Args:
        reading: how the data set is read.
    """

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self._spools: dict[str, Spool] = {}
        self._labels: dict[str, list[int]] = {}
        self._first: tuple[tuple[int, ...], str] | None = None
        self._bytes = self._count = self._expected = 0

    def expect(self, count: int) -> None:
        """Announce ``count`` more images, for the reports of progress."""
        self._expected += count

    def add(self, split: str, image: NDArray[np.uint8], label: int, name: str) -> None:
        """Add an image, uint8 ``[C, H, W]``; the other arguments and errors as in ``extend``."""
        self.extend(split, image[None], [label], name)

    def extend(self, split: str, images: NDArray[np.uint8], labels: list[int], name: str) -> None:
        """Add images to a split.

        Args:
            split: the split's name.
            images: uint8 ``[N, C, H, W]``.
            labels: N labels.
            name: the name of the images' file or array, for messages.

        Raises:
            InvalidInput: ``image_shape_mismatch`` if the shape differs from that of earlier images;
                ``label_out_of_range`` if a label is no int64; ``dataset_too_large`` if all images
                together are too large.
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
        if not -_MAX_LABEL <= min(labels, default=0) <= max(labels, default=0) < _MAX_LABEL:
            raise InvalidInput(
                "label_out_of_range", f"a label of {name[:120]!r} has over 64 bits", name[:120]
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
        """The splits by name.

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
    """Check that the decoded images are not too large.

    Args:
        size: the size of all images together, in bytes.

    Raises:
        InvalidInput: ``dataset_too_large`` if it is above ``MAX_BYTES``.
    """
    if size > MAX_BYTES:
        raise InvalidInput(
            "dataset_too_large",
            f"the images take more than {MAX_BYTES:,} bytes decoded: send fewer",
            "dataset",
        )
