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
    """A network whose weights are held in some form that training moves.

    Attributes:
        network: its parameters always show the present weights, in their dense form.
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
        """The tensors that a weight average covers: all that training moves, norms' statistics too.

        They are the live tensors in a fixed order; whoever changes them calls ``refresh``.
        """

    @abstractmethod
    def refresh(self) -> None:
        """Write the weights into the network again after the ``averaged`` tensors were changed."""

    @abstractmethod
    def state_dict(self) -> State:
        """All that changes in training, for a checkpoint."""

    @abstractmethod
    def load_state_dict(self, state_dict: State) -> None:
        """Continue from the ``state_dict`` of an object of the same network and arguments."""


class DenseWeights(Trainable):
    """The network's own parameters, unconstrained.

    Args:
        optimizer: makes the optimiser of the network's parameters; SGD by default.
    """

    def __init__(self, network: nn.Module, optimizer: OptimizerFactory | None = None) -> None:
        self.network = network
        self.optimizer = (optimizer or sgd())(list(network.parameters()))

    def update(self, learning_rate: float | None = None) -> None:
        optimizer_step(self.optimizer, learning_rate)

    def averaged(self) -> list[Tensor]:
        return [*self.network.parameters(), *statistics(self.network)]

    def refresh(self) -> None:
        """Do nothing: the averaged tensors are the network's own."""

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
        factors: U, V and C of each weight, by name; their used tensors are views of the pool.
        composed: the network's parameters that they are composed into, by the same names.
        others: the network's other parameters: biases and norms.
        other_names: their names.
        pool: all entries of the factors in one flat tensor.
    """

    def __init__(self, network: nn.Module, factors: NamedFactors) -> None:
        self.network = network
        self.factors = factors
        parameters = dict(network.named_parameters())
        self.composed = {name: parameters.pop(name) for name in factors}
        self.other_names, self.others = list(parameters), list(parameters.values())
        self.pool = Pool(factors)
        self.compose()

    @torch.no_grad()
    def compose(self) -> None:
        """Write W = UV + C into the network."""
        for name, factors in self.factors.items():
            self.composed[name].copy_(factors.compose())

    def write_gradients(self, into: Tensor) -> None:
        """Write the gradients of all factors, weight by weight, freeing each W's own on the way.

        So the memory of ``into``, if it was allocated just before and is not yet touched, fills
        only as fast as that of the dense gradients is freed.

        Args:
            into: a tensor like the pool's ``flat``, overwritten.
        """
        for name, factors, gradients in self.pool.by_weight(into):
            weight = self.composed[name]
            assert weight.grad is not None
            factors.write_gradients(weight.grad, gradients)
            weight.grad = None

    def squared_effects(self, flat: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The squared effects on W (``Factors.effects``) of the entries of all U and V.

        A gradient in U or V that is divided by them moves W as far as a gradient in W itself would.

        Args:
            flat: a tensor like the pool's ``flat``.

        Yields:
            U's part of ``flat`` and then V's, for each factorised weight, in its own shape, with
            the squared effects, which broadcast against it and are at least 1.
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
        """The tensors that a weight average covers: the pool, the others, norms' statistics."""
        return [self.pool.flat, *self.others, *statistics(self.network)]

    def refresh(self) -> None:
        """Compose W from its factors again, after the ``averaged`` tensors were changed."""
        self.compose()

    def model_state(self) -> State:
        """Copies of the factors and of the network's tensors: all that an artifact needs."""
        return {
            "factors": [own.state() for own in self.factors.values()],
            "network": clone_state(self.network),
        }

    def restore_model(self, state: State) -> None:
        """Write a ``model_state`` into the factors' and the network's own memory."""
        for own, saved in zip(self.factors.values(), state["factors"], strict=True):
            own.restore(saved)
        load_tensors(self.network, state["network"])
