"""Whether a network's training step can be recorded: nothing in it may wait for the device.

A recording replays kernels. Where Python looks at what they computed (``.item()``, an ``if`` on a
tensor, a mask as an index, a copy to or from the host) there can be none. Trying fails, and what a
failed recording leaves behind (a stream, a generator that still counts for it) is no place to go on
from. So it is found out before, by a step that is watched operation by operation.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from atmc_core.networks.classifier import Classifier, frozen_model
from atmc_core.training.step import RecordedStep

_SEEN_BY_PYTHON = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_COPIES = {torch.ops.aten._to_copy, torch.ops.aten.copy_}
_INDEXED = {
    *(torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_),
    torch.ops.aten._index_put_impl_,
}


class Waits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the operations inside it that wait for the device, or would on a GPU.

    Attributes:
        found: their names, each once, in the order of their first call.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = str(func.overloadpacket).removeprefix("aten.")
        if name not in self.found and _waits(func, args, result):
            self.found.append(name)
        return result


def _waits(func: Any, args: tuple[Any, ...], result: Any) -> bool:
    if func.overloadpacket in _INDEXED:
        # By numbers an index is a kernel like others; a mask is counted first, but for a single
        # value, which is written through it.
        single = len(args) > 2 and args[2].numel() == 1
        return not single and any(index.dtype == torch.bool for index in _tensors(args[1]))
    if func.overloadpacket in _COPIES:
        return len({tensor.device.type for tensor in _tensors((args, result))}) > 1
    return not _SEEN_BY_PYTHON.isdisjoint(func.tags)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def waiting_operations(step: RecordedStep, images: Tensor, labels: Tensor) -> list[str]:
    """What in a step on these images stands in the way of a recording: nothing, if it can be.

    The classifier is afterwards what it was.
    """
    classifier, waits = step.classifier, Waits()
    with _unchanged(classifier), waits:
        model = frozen_model(classifier.eval())
        classifier.train()
        step.compute(model, images, labels, images.clone())
    return waits.found


@contextmanager
def _unchanged(classifier: Classifier) -> Iterator[None]:
    """Statistics, gradients, mode and random numbers are afterwards what they were."""
    device = next(classifier.parameters()).device
    statistics = [(buffer, buffer.clone()) for buffer in classifier.buffers()]
    gradients = [(parameter, parameter.grad) for parameter in classifier.parameters()]
    training = classifier.training
    classifier.zero_grad(set_to_none=True)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, before in statistics:
                    buffer.copy_(before)
            for parameter, gradient in gradients:
                parameter.grad = gradient
            classifier.train(training)
