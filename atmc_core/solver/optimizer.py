"""The optimiser that moves what the solver trains: torch's, of the caller's choice."""

from collections.abc import Callable

import torch
from torch import Tensor

from atmc_spec import defaults

#: Makes the optimiser of some tensors: a class of ``torch.optim``, or any function like one.
OptimizerFactory = Callable[[list[Tensor]], torch.optim.Optimizer]


def sgd(
    learning_rate: float = defaults.LEARNING_RATE,
    momentum: float = defaults.MOMENTUM,
    weight_decay: float = defaults.WEIGHT_DECAY,
) -> OptimizerFactory:
    """SGD with momentum, as the paper trains; Nesterov's form, one fused pass over each tensor."""
    return lambda tensors: torch.optim.SGD(
        tensors,
        lr=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
        nesterov=momentum > 0,
        fused=True,
    )


def optimizer_step(optimizer: torch.optim.Optimizer, learning_rate: float | None) -> None:
    """One step; gradients are freed afterwards.

    Args:
        learning_rate: by default the optimiser's own, which a scheduler may have set.
    """
    if learning_rate is not None:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
