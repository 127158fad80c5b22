"""How the conv and linear weights of a network are held while they are trained."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from atmc_core.factors.factors import NamedFactors
from atmc_core.factors.pool import Pool
from atmc_core.networks.classifier import statistics
from atmc_core.networks.state_dict import clone_state, load_tensors
from atmc_core.solver.optimizer import OptimizerFactory, optimizer_step, sgd

State = dict[str, Any]


class Trainable(ABC):
    """A network together with how its conv and linear weights are held.

    Attributes:
        network: the graph; its parameters are always what is trained, composed.
    """

    network: nn.Module

    @abstractmethod
    def update(self, learning_rate: float | None = None) -> None:
        """Take one optimiser step from the gradients of the network's parameters, and free them.

        Args:
            learning_rate: by default the optimiser's own.
        """

    @abstractmethod
    def averaged(self) -> list[Tensor]:
        """What a weight average is taken of: what training moves, and the norms' statistics."""

    @abstractmethod
    def refresh(self) -> None:
        """Follow a change of the averaged tensors."""

    @abstractmethod
    def state_dict(self) -> State:
        """All that changes in training, for a checkpoint."""

    @abstractmethod
    def load_state_dict(self, state_dict: State) -> None:
        """Go on from a ``state_dict``."""


class DenseWeights(Trainable):
    """The network's own parameters, unconstrained."""

    def __init__(self, network: nn.Module, optimizer: OptimizerFactory | None = None) -> None:
        self.network = network
        self.optimizer = (optimizer or sgd())(list(network.parameters()))

    def update(self, learning_rate: float | None = None) -> None:
        optimizer_step(self.optimizer, learning_rate)

    def averaged(self) -> list[Tensor]:
        return [*self.network.parameters(), *statistics(self.network)]

    def refresh(self) -> None:
        """The network's own parameters are the averaged tensors themselves."""

    def state_dict(self) -> State:
        return {
            "network": clone_state(self.network),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state_dict: State) -> None:
        load_tensors(self.network, state_dict["network"])
        self.optimizer.load_state_dict(state_dict["optimizer"])


class FactorizedWeights:
    """Conv and linear weights held as U, V and C, composed into the network's parameters.

    Attributes:
        others: the network's other parameters.
    """

    def __init__(self, network: nn.Module, factors: NamedFactors) -> None:
        self.network = network
        self.factors = factors
        parameters = dict(network.named_parameters())
        self.composed = {name: parameters.pop(name) for name in factors}
        self.others = list(parameters.values())
        self.pool = Pool(factors)
        self.compose()

    @torch.no_grad()
    def compose(self) -> None:
        """Write W = UV + C into the network."""
        for name, factors in self.factors.items():
            self.composed[name].copy_(factors.compose())

    def write_gradients(self, into: Tensor) -> None:
        """Write the gradients of all factors, weight by weight; W's own are freed meanwhile.

        Args:
            into: like the pool. Memory that is taken for it just before is touched only as W's
                gradients go.
        """
        for name, factors, gradients in self.pool.by_weight(into):
            weight = self.composed[name]
            assert weight.grad is not None
            factors.write_gradients(weight.grad, gradients)
            weight.grad = None

    def reaches(self, flat: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """What gradients in U and V are divided by, so that W moves as far as by its own.

        Yields:
            The parts of a tensor like the pool that are U's and V's, with the squares of their
            effects on W, which broadcast against them; 1 where an effect is less.
        """
        pairs = [
            (part, effect)
            for _, factors, parts in self.pool.by_weight(flat)
            if not factors.plain
            for part, effect in zip(parts, factors.effects(), strict=False)
        ]
        if pairs:
            effects = [effect for _, effect in pairs]
            torch._foreach_clamp_min_(effects, 1)
            torch._foreach_mul_(effects, effects)
        yield from pairs

    def averaged(self) -> list[Tensor]:
        return [self.pool.flat, *self.others, *statistics(self.network)]

    def refresh(self) -> None:
        """W follows its factors."""
        self.compose()

    def model_state(self) -> State:
        """Factors and the rest of the network: all that the artifact needs."""
        return {
            "factors": [own.state() for own in self.factors.values()],
            "network": clone_state(self.network),
        }

    def restore_model(self, state: State) -> None:
        for own, saved in zip(self.factors.values(), state["factors"], strict=True):
            own.restore(saved)
        load_tensors(self.network, state["network"])
