"""Weight averaging: keeps an average of the weights over the steps of training.

Averaged weights suffer less from robust overfitting than those of any single epoch (Izmailov et
al., 2018; Gowal et al., 2020). An average of feasible points need not be feasible. Therefore only
those tensors are averaged whose average is: codebook values, and entries for as long as they stay
in the support.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from atmc_core.solver.weights import Trainable

#: A function from the number of steps so far to the weight of the present tensors in the average.
Weighting = Callable[[int], float]

# Step n of an exponential average keeps at most n / (n + this) of the average.
_WARM_UP_STEPS = 9


def exponential(decay: float) -> Weighting:
    """An exponential moving average.

    Args:
        decay: the share of the average that a step keeps, in [0, 1). The first steps keep less, so
            that the initial weights are soon forgotten.
    """
    return lambda step: 1 - min(decay, step / (step + _WARM_UP_STEPS))


def equal(start: int) -> Weighting:
    """The mean of the tensors of all steps after step ``start``; until then, the present ones."""
    return lambda step: 1 / max(1, step - start)


class WeightAverage:
    """An average of the tensors that a net offers for averaging.

    Args:
        net: the net; its present tensors are the first average.
        weighting: the weight of each step.
    """

    def __init__(self, net: Trainable, weighting: Weighting) -> None:
        self.net, self.weighting, self.steps = net, weighting, 0
        self.tensors = [tensor.detach().clone() for tensor in net.averaged()]

    @torch.no_grad()
    def update(self) -> None:
        """Add the net's present tensors to the average, as the next step.

        The average is zero exactly where the net's tensors are zero, so it has no more non-zeros
        than the net. An entry that has just entered the support starts with its present value.
        """
        self.steps += 1
        weight = self.weighting(self.steps)
        for average, tensor in zip(self.tensors, self.net.averaged(), strict=True):
            mixed = torch.where(average == 0, tensor, average.lerp(tensor, weight))
            average.copy_(mixed.mul_(tensor != 0))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averaged tensors into the net for the duration of the context."""
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
        """The average as a checkpoint saves it: tensors (not copied) and numbers."""
        return {"steps": self.steps, "tensors": self.tensors}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``, as ``state_dict()`` returned it."""
        self.steps = state["steps"]
        for average, saved in zip(self.tensors, state["tensors"], strict=True):
            average.copy_(saved)
