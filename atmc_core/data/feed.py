"""The training images of an epoch, batch by batch, from the device or streamed from a memory map.

Both ways give the same batches for the same generator, so a job's artifact is the same.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atmc_core.data.augmentation import UNCHANGED, Augmentation
from atmc_core.data.sets import WHITE, Split

# Images are gathered in parts of about this many bytes, and this many parts ahead of the training.
# A part has many batches of a small network, whose step is faster than handing over one batch.
_AHEAD, _PART_BYTES = 3, 4 * 2**20


def training_batches(
    split: Split,
    size: int,
    generator: torch.Generator,
    augmentation: Augmentation = UNCHANGED,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of one epoch, in random order.

    If the last batch had a single image, it is left out, because batch norms need two.

    Args:
        split: the training images.
        size: the number of images in a batch.
        generator: draws the order and the augmentation; on the CPU.
        augmentation: random changes of the images.

    Yields:
        Images, float32 ``[N, C, H, W]`` in [0, 1], and labels, int64 ``[N]``, both on the device of
        the split's labels.
    """
    device = split.labels.device
    order = torch.randperm(len(split), generator=generator)
    if len(order) % size == 1:
        order = order[:-1]
    drawn = augmentation.draw(len(order), generator)
    moves = None if drawn is None else drawn.to(device)
    labels = split.labels[order.to(device)]
    images_of = _streamed if split.mapped else _resident
    start = 0
    for images in images_of(split, order, size):
        part = slice(start, start + len(images))
        start += len(images)
        if moves is not None:
            images = augmentation.apply(images, moves[part])
        yield images.float().div_(WHITE), labels[part]


def _resident(split: Split, order: Tensor, size: int) -> Iterator[Tensor]:
    for places in torch.split(order.to(split.images.device), size):
        yield split.images[places]


def _streamed(split: Split, order: Tensor, size: int) -> Iterator[Tensor]:
    """Yield the images batch by batch, while threads gather the next parts.

    There are several threads, so that a disk has more than one page to read at a time.
    """
    device = split.labels.device
    part = size * max(1, _PART_BYTES // (size * split.images[0].nbytes))
    way = _ByGpu(split.images, part, device) if device.type == "cuda" else _Direct(split.images)
    with ThreadPoolExecutor(_AHEAD, "feed") as threads:
        waiting: deque[Future[Tensor]] = deque()
        for places in torch.split(order, part):
            waiting.append(threads.submit(_gather, way.images, places, way.room(len(places))))
            if len(waiting) > _AHEAD:
                yield from torch.split(way.send(waiting.popleft().result()), size)
        while waiting:
            yield from torch.split(way.send(waiting.popleft().result()), size)


def _gather(images: NDArray[np.uint8], places: Tensor, room: Tensor) -> Tensor:
    """Copy the images at ``places`` into ``room``, which is returned.

    NumPy does the copy, because torch would start a second pool of threads here that competes with
    the training's own. CUDA is not used, because the training thread may be recording a graph, and
    a CUDA call from another thread would break the recording.
    """
    # All places are in range, and unlike "raise" the mode "clip" needs no buffer.
    np.take(images, places.numpy(), axis=0, out=room.numpy(), mode="clip")
    return room


class _Direct:
    """Moves images from a memory map to memory."""

    def __init__(self, images: Tensor) -> None:
        self.images: NDArray[np.uint8] = images.numpy()

    def room(self, count: int) -> Tensor:
        """Memory for ``count`` images."""
        return torch.empty((count, *self.images.shape[1:]), dtype=torch.uint8)

    def send(self, part: Tensor) -> Tensor:
        """The gathered images on the device where they are trained on."""
        return part


class _ByGpu(_Direct):
    """Moves images to a GPU, through pinned memory and on a stream of its own.

    So the copy runs while the GPU computes.
    """

    def __init__(self, images: Tensor, size: int, device: torch.device) -> None:
        super().__init__(images)
        self.device = device
        self.side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        shape = (size, *images.shape[1:])
        # Up to _AHEAD + 1 parts wait, and the copy of the one before them may not have finished.
        self.rooms = [
            torch.empty(shape, dtype=torch.uint8, pin_memory=True) for _ in range(_AHEAD + 2)
        ]
        self.sent = [torch.cuda.Event() for _ in self.rooms]  # type: ignore[no-untyped-call]
        self.given = self.taken = 0

    def room(self, count: int) -> Tensor:
        place = self.given % len(self.rooms)
        self.given += 1
        self.sent[place].synchronize()
        return self.rooms[place][:count]

    def send(self, part: Tensor) -> Tensor:
        sent = self.sent[self.taken % len(self.rooms)]
        self.taken += 1
        with torch.cuda.stream(self.side):
            arrived = part.to(self.device, non_blocking=True)
            sent.record(self.side)
        current = torch.cuda.current_stream(self.device)
        current.wait_event(sent)
        # Otherwise the memory might be reused for the next part while this one is in use.
        arrived.record_stream(current)
        return arrived
