"""The training images of an epoch, batch by batch: from the device, or streamed from a memory map.

Which of the two it is changes nothing but where the bytes come from: the same generator gives the
same batches, so a job's artifact is the same either way.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from atmc_core.data.augmentation import UNCHANGED, Augmentation
from atmc_core.data.sets import Split

#: Batches that are gathered while the network is busy with one.
_AHEAD = 3


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
    """The images, gathered by a thread that is some batches ahead."""
    stream = _Stream(split.images, split.labels.device)
    with ThreadPoolExecutor(1, "feed") as thread:
        waiting: deque[Future[_Loaded]] = deque()
        for places in torch.split(order, size):
            waiting.append(thread.submit(stream.load, places))
            if len(waiting) > _AHEAD:
                yield stream.receive(waiting.popleft().result())
        while waiting:
            yield stream.receive(waiting.popleft().result())


#: A batch, and what to wait for before it is there.
_Loaded = tuple[Tensor, torch.cuda.Event | None]


class _Stream:
    """Images out of a memory map, to the device.

    To a GPU they go through pinned memory, on a CUDA stream of their own, beside what it computes.
    """

    def __init__(self, images: Tensor, device: torch.device) -> None:
        self.images, self.device = images.numpy(), device
        self.side = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def load(self, places: Tensor) -> _Loaded:
        """Gather the images at ``places`` and send them off; in the feed's thread."""
        shape = (len(places), *self.images.shape[1:])
        batch = torch.empty(shape, dtype=torch.uint8, pin_memory=self.side is not None)
        # By NumPy: torch would start a second pool of threads here, against the training's own.
        # Places are in range, and unlike "raise" this mode needs no buffer.
        np.take(self.images, places.numpy(), axis=0, out=batch.numpy(), mode="clip")
        if self.side is None:
            return batch, None
        with torch.cuda.stream(self.side):
            return batch.to(self.device, non_blocking=True), self.side.record_event()

    def receive(self, loaded: _Loaded) -> Tensor:
        """The batch, ready for what comes next on the device; in the thread that trains."""
        batch, arrived = loaded
        if arrived is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_event(arrived)
            batch.record_stream(current)  # else its memory might be taken for the next one
        return batch
