"""The training images of an epoch, batch by batch: from the device, or streamed from a memory map.

Which of the two it is changes nothing but where the bytes come from: the same generator gives the
same batches, so a job's artifact is the same either way.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atmc_core.data.augmentation import UNCHANGED, Augmentation
from atmc_core.data.sets import Split

#: Parts of an epoch that are gathered while the network is busy with one, and their size: handing a
#: small network every batch by itself takes longer than its step.
_AHEAD, _PART_BYTES = 3, 4 * 2**20


def training_batches(
    split: Split,
    size: int,
    generator: torch.Generator,
    augmentation: Augmentation = UNCHANGED,
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch in random order: images as float32 in [0, 1], and labels, on the labels' device.

    A last batch of a single image is left out (batch norms).

    Args:
        generator: on the CPU; order and augmentation are drawn from it.
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
        yield images.float().div_(255), labels[part]


def _resident(split: Split, order: Tensor, size: int) -> Iterator[Tensor]:
    for places in torch.split(order.to(split.images.device), size):
        yield split.images[places]


def _streamed(split: Split, order: Tensor, size: int) -> Iterator[Tensor]:
    """The images, gathered by threads that are some parts, of a few batches each, ahead.

    Several, so that a disk is asked for more than one page at a time.
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

    By NumPy: torch would start a second pool of threads here, against the training's own. And no
    CUDA: the thread that trains may be recording a graph, which a call from elsewhere would break.
    """
    # Places are in range, and unlike "raise" this mode needs no buffer.
    np.take(images, places.numpy(), axis=0, out=room.numpy(), mode="clip")
    return room


class _Direct:
    """From a memory map to memory."""

    def __init__(self, images: Tensor) -> None:
        self.images: NDArray[np.uint8] = images.numpy()

    def room(self, count: int) -> Tensor:
        """Where so many images can be gathered."""
        return torch.empty((count, *self.images.shape[1:]), dtype=torch.uint8)

    def send(self, part: Tensor) -> Tensor:
        """The gathered images where they are trained on."""
        return part


class _ByGpu(_Direct):
    """To a GPU, through pinned memory and on a stream of its own, beside what the GPU computes."""

    def __init__(self, images: Tensor, size: int, device: torch.device) -> None:
        super().__init__(images)
        self.device = device
        self.side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        shape = (size, *images.shape[1:])
        # One more than can wait: the last one sent may still be on its way.
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
        arrived.record_stream(current)  # else its memory might be taken for the next one
        return arrived
