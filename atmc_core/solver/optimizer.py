"""The optimiser that moves the solver's tensors: one of torch's, which the caller may choose."""

from collections.abc import Callable

import torch
from torch import Tensor

from atmc_spec import defaults

#: Makes an optimiser of some tensors: a class of ``torch.optim``, or a function that returns one.
OptimizerFactory = Callable[[list[Tensor]], torch.optim.Optimizer]


def sgd(
    learning_rate: float = defaults.LEARNING_RATE,
    momentum: float = defaults.MOMENTUM,
    weight_decay: float = defaults.WEIGHT_DECAY,
) -> OptimizerFactory:
    """SGD with Nesterov momentum, fused into one pass over each tensor; the paper trains with SGD.

    Args:
        momentum: 0 to below 1; with 0 it is plain SGD.
    """
    return lambda tensors: torch.optim.SGD(
        tensors,
        lr=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
        nesterov=momentum > 0,
        fused=True,
    )


def adam(
    learning_rate: float = defaults.ADAM_RATE,
    momentum: float = defaults.MOMENTUM,
    weight_decay: float = 0.0,
) -> OptimizerFactory:
    """Adam with decoupled weight decay (Loshchilov & Hutter, 2019), fused likewise.

    Args:
        momentum: the decay of the mean gradient, beta 1.
    """
    return lambda tensors: torch.optim.AdamW(
        tensors,
        lr=learning_rate,
        betas=(momentum, 0.999),
        weight_decay=weight_decay,
        fused=True,
    )


def optimizer_step(optimizer: torch.optim.Optimizer, learning_rate: float | None) -> None:
    """Take one step and free the gradients.

    Args:
        learning_rate: by default the optimiser's own, which a scheduler may have set.
    """
    if learning_rate is not None:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
