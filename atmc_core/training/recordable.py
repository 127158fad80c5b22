"""Finds out whether a network's training step can be recorded as a CUDA graph.

A recording replays kernels, so Python must not look at what they computed: a step with ``.item()``,
an ``if`` on a tensor, a mask as an index, or a copy to or from the host cannot be recorded. A
recording that fails leaves the process in a state from which it cannot continue (a stream and a
random generator still belong to the recording). Therefore the step is not tried but run once
without recording, and its operations are inspected one by one.
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

# The tags of operations whose result or shape Python reads from the device.
_SEEN_BY_PYTHON = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
# Operations that may copy between devices.
_COPIES = {torch.ops.aten._to_copy, torch.ops.aten.copy_}
# Operations that take an index.
_INDEXED = {
    *(torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_),
    torch.ops.aten._index_put_impl_,
}


class Waits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context that notes the operations inside it that would make Python wait for a GPU.

    Attributes:
        found: the names of those operations, each once, in the order of their first call.
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
        # Indexing by numbers is a kernel like others. For a mask, Python waits for the number of
        # its true entries, unless a single value is written to all of them.
        single = len(args) > 2 and args[2].numel() == 1
        return not single and any(index.dtype == torch.bool for index in _tensors(args[1]))
    if func.overloadpacket in _COPIES:
        return len({tensor.device.type for tensor in _tensors((args, result))}) > 1
    return not _SEEN_BY_PYTHON.isdisjoint(func.tags)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def waiting_operations(step: RecordedStep, images: Tensor, labels: Tensor) -> list[str]:
    """The operations that prevent a step from being recorded.

    Args:
        step: the step; its classifier is left as it was.
        images: a batch, float ``[N, C, H, W]`` in [0, 1].
        labels: its labels, int64 ``[N]``.

    Returns:
        The operations' names; none if the step can be recorded.
    """
    classifier, waits = step.classifier, Waits()
    with _unchanged(classifier), waits:
        model = frozen_model(classifier.eval())
        classifier.train()
        step.compute(model, images, labels, images.clone())
    return waits.found


@contextmanager
def _unchanged(classifier: Classifier) -> Iterator[None]:
    """Restore the classifier's statistics, gradients and mode, and the random state, at the end."""
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
