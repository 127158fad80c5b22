"""Images on disk instead of in memory: written as they come, then seen as one tensor."""

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atmc_core.errors import InvalidInput

#: Of images that are handled at a time on their way.
PART_BYTES = 4 * 2**20


class Spool:
    """Images of one size, in a file without a name, so that it goes when nobody maps it any more.

    Args:
        folder: where; by default the system's for temporary files.
    """

    def __init__(self, folder: Path | None) -> None:
        # It stays open: the map, made at the end, holds the file from then on.
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._shape: tuple[int, ...] = ()
        self._count = 0

    def add(self, images: NDArray[np.uint8]) -> None:
        """Take images ``[N, C, H, W]``.

        Raises:
            InvalidInput: ``dataset_too_large`` if the disk is full.
        """
        self._shape = images.shape[1:]
        self._count += len(images)
        with self._room():
            self._file.write(np.ascontiguousarray(images).data)

    def images(self) -> Tensor:
        """All images, uint8 ``[N, C, H, W]``, in a memory map; raises as ``add`` does."""
        shape = (self._count, *self._shape)
        with self._room():
            self._file.flush()
        with self._file as file:
            return torch.from_numpy(np.memmap(file, np.uint8, "r+", shape=shape))

    @contextmanager
    def _room(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
                raise
            raise InvalidInput(
                "dataset_too_large",
                f"{self._count:,} decoded images take more than the disk has room for: send fewer",
                "dataset",
            ) from error
