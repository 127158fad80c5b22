"""Trains one network in several processes with one GPU each (started by torchrun).

It works like DistributedDataParallel: each process computes its share of every batch, and all of
them take the same step along the mean gradient of the whole batch. Random starts are drawn for the
whole batch and then divided, so a network without batch norms trains as in one process, up to
rounding. A batch norm normalises by the statistics of its process's share; running statistics are
averaged over the processes.

In a process that torchrun did not start, everything here does nothing.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from atmc_core.training.step import Step

T = TypeVar("T")

# A batch norm needs at least this many images.
_LEAST_IMAGES = 2

# The other processes wait while the first one evaluates, which may take days. If one of them dies,
# torchrun ends all others, so no timeout is needed for that.
_TIMEOUT = timedelta(days=365)


def is_launched() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


@contextmanager
def together(device: torch.device) -> Iterator[torch.device]:
    """Join the other processes, if torchrun started any.

    Args:
        device: the device of a single process; of "cuda", each process takes the GPU of its rank.

    Yields:
        The device of this process.
    """
    if not is_launched():
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT)
    yield device
    # This line is not reached after an error. It would wait for the other processes, and they may
    # be waiting for this one.
    dist.destroy_process_group()


def processes() -> int:
    """The number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process among them, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Whether this process is the one that evaluates, saves and reports."""
    return rank() == 0


def from_first(value: T) -> T:
    """Send a value from the first process to all others; every process must call this function.

    Args:
        value: tensors and plain values; ignored in all processes but the first.

    Returns:
        The first process's value; in the other processes its tensors are on the CPU.
    """
    if processes() == 1:
        return value
    content: list[bytes | None] = [None]
    if is_first():
        file = io.BytesIO()
        torch.save(value, file)
        content = [file.getvalue()]
    dist.broadcast_object_list(content)
    if is_first():
        return value
    assert content[0] is not None
    answer: T = torch.load(io.BytesIO(content[0]), map_location="cpu", weights_only=True)
    return answer


class SharedStep(Step):
    """A step in which each process computes its share of the batch.

    Args:
        own: the step that this process runs on its share.
    """

    def __init__(self, own: Step) -> None:
        super().__init__(own.classifier, own.attack, own.loss, own.speed, own.teacher)
        self.own = own

    def at(self, progress: float) -> None:
        self.own.at(progress)

    def start(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        return self.own.start(images, generator)

    def gradients_from(self, start: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        mine, weight = share(len(labels))
        loss = self.own.gradients_from(start[mine], images[mine], labels[mine])
        gradients = [p.grad for p in self.classifier.parameters() if p.grad is not None]
        statistics = [b for b in self.classifier.buffers() if b.is_floating_point()]
        _sum([loss, *gradients, *statistics], weight)
        return loss


def share(count: int) -> tuple[slice, float]:
    """This process's part of ``count`` images, and the part's weight in their mean.

    If a part had fewer than two images, which batch norms need, each process takes all of them.
    """
    if count < _LEAST_IMAGES * processes():
        return slice(None), 1 / processes()
    first, last = (count * each // processes() for each in (rank(), rank() + 1))
    return slice(first, last), (last - first) / count


@torch.no_grad()
def _sum(tensors: list[Tensor], weight: float) -> None:
    """Replace each tensor by its weighted sum over the processes, in one message for all."""
    message = torch.cat([tensor.reshape(-1) for tensor in tensors]).mul_(weight)
    dist.all_reduce(message)
    parts = torch.split(message, [tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))
