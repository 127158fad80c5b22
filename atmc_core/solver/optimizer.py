"""The optimiser of a training step."""

from collections.abc import Iterable

import torch
from torch import Tensor

from atmc_spec import Training


def make_optimizer(leaves: Iterable[Tensor], training: Training) -> torch.optim.SGD:
    """SGD with momentum, as the paper trains; Nesterov's form, one fused pass over each tensor."""
    return torch.optim.SGD(
        list(leaves),
        lr=training.learning_rate,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
        nesterov=training.momentum > 0,
        fused=True,
    )


def optimizer_step(optimizer: torch.optim.SGD, learning_rate: float) -> None:
    """One step at this learning rate; gradients are freed afterwards."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
