"""Several processes, one GPU each, that train one network together (started by torchrun).

The semantics are DistributedDataParallel's: each process computes its share of every batch, and all
of them take the same step on the whole batch's mean gradient. Random starts are drawn for the whole
batch and then shared out, so a network without batch norms trains as in one process, but for
rounding. Batch norms normalise by the share's own statistics; their running ones are averaged.

Alone, without torchrun, everything here does nothing.
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

# The others wait while the first evaluates, which may take days; a lost one ends them all anyway.
_PATIENCE = timedelta(days=365)


def is_launched() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


@contextmanager
def together(device: torch.device) -> Iterator[torch.device]:
    """Join the other processes, if torchrun started any; yields this process's own device."""
    if not is_launched():
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    yield device
    # Not after an error: the others may wait for this one, which ends now.
    dist.destroy_process_group()


def processes() -> int:
    """How many train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Whether this process is the one that evaluates, saves and reports."""
    return rank() == 0


def from_first(value: T) -> T:
    """What the first process has here, for all; on the others its tensors are on the CPU.

    Every process must call it. Tensors and plain values only.
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
    """A step of which each process computes its share of the batch."""

    def __init__(self, own: Step) -> None:
        """``own`` is run on the share."""
        super().__init__(own.classifier, own.attack, own.loss, own.speed)
        self.own = own

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
    """This process's part of ``count`` images, and its weight in their mean.

    Where it would be less than two images (batch norms) each process takes them all.
    """
    if count < 2 * processes():
        return slice(None), 1 / processes()
    first, last = (count * each // processes() for each in (rank(), rank() + 1))
    return slice(first, last), (last - first) / count


@torch.no_grad()
def _sum(tensors: list[Tensor], weight: float) -> None:
    """Replace each tensor by its weighted sum over the processes: one message for all of them."""
    message = torch.cat([tensor.reshape(-1) for tensor in tensors]).mul_(weight)
    dist.all_reduce(message)
    parts = torch.split(message, [tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))
