"""Weight averaging: what is kept is an average of what training passes through.

Averaged weights overfit less robustly than any single epoch's (Izmailov et al., 2018; Gowal et al.,
2020). An average of feasible points need not be feasible, so it is taken where it is: of values
that are shared, and of entries as long as they stay in the support.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from atmc_core.solver.weights import Trainable

#: The weight of a step's tensors in the average, of the number of steps so far.
Weighting = Callable[[int], float]


def exponential(decay: float) -> Weighting:
    """An exponential moving average.

    Args:
        decay: share of the average that a step leaves as it is; less in the first steps, so that
            the start is soon forgotten.
    """
    return lambda step: 1 - min(decay, step / (step + 9))


def equal(start: int) -> Weighting:
    """The mean of all steps after the first ``start``, up to which it is the present one."""
    return lambda step: 1 / max(1, step - start)


class WeightAverage:
    """An average of a net's tensors."""

    def __init__(self, net: Trainable, weighting: Weighting) -> None:
        self.net, self.weighting, self.steps = net, weighting, 0
        self.tensors = [tensor.detach().clone() for tensor in net.averaged()]

    @torch.no_grad()
    def update(self) -> None:
        """Take the net's present tensors in.

        An entry that is zero is none here, either, and one that has just come into the support
        starts with its present value: so the average has no more non-zeros than the net.
        """
        self.steps += 1
        weight = self.weighting(self.steps)
        for average, tensor in zip(self.tensors, self.net.averaged(), strict=True):
            mixed = torch.where(average == 0, tensor, average.lerp(tensor, weight))
            average.copy_(mixed.mul_(tensor != 0))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The net has the averaged tensors inside, and its own again afterwards."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for average, tensor in zip(self.tensors, self.net.averaged(), strict=True):
            own = tensor.clone()
            tensor.copy_(average)
            average.copy_(own)
        self.net.refresh()

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"steps": self.steps, "tensors": self.tensors}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state``."""
        self.steps = state["steps"]
        for average, saved in zip(self.tensors, state["tensors"], strict=True):
            average.copy_(saved)
