"""Keeps images on disk instead of in memory: they are written one by one and read as a tensor."""

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

#: Images are read and written in parts of about this size.
PART_BYTES = 4 * 2**20


class Spool:
    """Images of one shape in a file without a name.

    The system deletes the file when nothing maps it any more.

    Args:
        folder: the folder of the file; by default the system's for temporary files.
    """

    def __init__(self, folder: Path | None) -> None:
        # The file stays open until it is mapped; the map then keeps it.
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._shape: tuple[int, ...] = ()
        self._count = 0

    def add(self, images: NDArray[np.uint8]) -> None:
        """Append images, uint8 ``[N, C, H, W]``.

        Raises:
            InvalidInput: ``dataset_too_large`` if the disk is full.
        """
        self._shape = images.shape[1:]
        self._count += len(images)
        with disk_has_room(f"{self._count:,} decoded images take"):
            self._file.write(np.ascontiguousarray(images).data)

    def images(self) -> Tensor:
        """All images as a memory map, uint8 ``[N, C, H, W]``; errors as in ``add``.

        Nothing can be added afterwards.
        """
        shape = (self._count, *self._shape)
        with disk_has_room(f"{self._count:,} decoded images take"):
            self._file.flush()
        with self._file as file:
            return torch.from_numpy(np.memmap(file, np.uint8, "r+", shape=shape))


@contextmanager
def disk_has_room(what: str) -> Iterator[None]:
    """Refuse a data set if what is written in the block finds the disk full.

    Args:
        what: the beginning of the refusal: "... take".

    Raises:
        InvalidInput: ``dataset_too_large``.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            raise
        raise InvalidInput(
            "dataset_too_large", f"{what} more than the disk has room for: send fewer", "dataset"
        ) from error
