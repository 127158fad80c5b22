"""The arguments of a compressor, checked: an error names the value and what is allowed."""

from collections.abc import Callable
from typing import cast, get_args

import torch
from torch import Tensor, nn

from atmc_core.solver.optimizer import OptimizerFactory, sgd
from atmc_core.solver.support import Channels, Structure
from atmc_spec.names import Bits, Importance, StructureName


def given_optimizer(optimizer: OptimizerFactory | None, lr: float) -> OptimizerFactory:
    """The function that makes the optimiser: a class of ``torch.optim`` is given ``lr``.

    Raises:
        ValueError: if ``lr`` is not positive and finite.
    """
    if not 0 < lr < float("inf"):
        raise ValueError(f"lr is {lr}: it must be above 0")
    if optimizer is None:
        return sgd(lr)
    if isinstance(optimizer, type):
        kind = cast(Callable[..., torch.optim.Optimizer], optimizer)
        return lambda tensors: kind(tensors, lr=lr)
    return optimizer


def check_name(argument: str, given: object, names: object) -> None:
    """Check that an argument is one of the names of a ``Literal``.

    Raises:
        ValueError: if it is none of them.
    """
    if given not in get_args(names):
        raise ValueError(f"{argument} is {given!r}: it must be one of {', '.join(get_args(names))}")


def given_structure(
    structure: StructureName | Structure, network: nn.Module, importance: Importance
) -> Structure:
    """The structure itself if it is one, else a new one of the given name.

    Raises:
        InvalidInput: for ``channel`` and a network that ``torch.fx`` cannot trace.
        ValueError: if there is no such structure or importance.
    """
    if isinstance(structure, Structure):
        return structure
    check_name("structure", structure, StructureName)
    check_name("importance", importance, Importance)
    return Channels(network) if structure == "channel" else Structure(importance)


def given_k(density: float | None, k: int | None, num_weights: int) -> int:
    """The number of non-zeros allowed, given as itself or as a share of ``num_weights``.

    Raises:
        ValueError: if none or both are given, or the one given is out of range.
    """
    if (density is None) == (k is None):
        raise ValueError("give one of density and k")
    if density is not None:
        if not 0 < density <= 1:
            raise ValueError(f"density is {density}: it must be above 0 and at most 1")
        k = round(density * num_weights)
    if not isinstance(k, int) or not 1 <= k <= num_weights:
        raise ValueError(
            f"k is {k}: it must be a whole number from 1 to {num_weights}, the number of weights"
        )
    return k


def check_numbers(
    bits: int,
    steps: int,
    rank_fraction: float,
    rho: float,
    dual_interval: int,
    shrink_fraction: float,
) -> None:
    """Check the compressor's other numbers.

    Raises:
        ValueError: if one is out of its range.
    """
    for holds, message in (
        (bits in get_args(Bits), f"bits is {bits}: it must be 1 to 8, 16 or 32"),
        (
            isinstance(steps, int) and steps >= 0,
            f"steps is {steps}: it must be a whole number, not negative",
        ),
        (0 < rank_fraction <= 1, f"rank_fraction is {rank_fraction}: it must be in (0, 1]"),
        (rho > 0, f"rho is {rho}: it must be above 0"),
        (dual_interval >= 1, f"dual_interval is {dual_interval}: it must be at least 1"),
        (0 <= shrink_fraction <= 1, f"shrink_fraction is {shrink_fraction}: it must be in [0, 1]"),
    ):
        if not holds:
            raise ValueError(message)


def check_network(network: nn.Module, names: list[str]) -> None:
    """Check that a network can be compressed.

    Args:
        names: the names of its convolutions' and linear layers' weights.

    Raises:
        ValueError: if there are none, one is no plain parameter, is empty or needs no gradient, or
            some parameter is not float32.
    """
    if not names:
        raise ValueError("the network has no convolution (Conv2d) and no linear layer to compress")
    parameters: dict[str, Tensor] = dict(network.named_parameters())
    for name, parameter in parameters.items():
        if parameter.dtype != torch.float32:
            raise ValueError(f"{name} is {parameter.dtype}: compress a network in float32")
    for name in names:
        if name not in parameters:
            raise ValueError(f"{name} is no plain parameter: remove its parametrisation first")
        if not parameters[name].numel():
            raise ValueError(
                f"{name} is empty, {list(parameters[name].shape)}: leave its layer out"
            )
        if not parameters[name].requires_grad:
            raise ValueError(f"{name} needs no gradient: call requires_grad_() on it first")
