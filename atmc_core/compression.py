"""ATMC's solver: U, V and C trained under one l0 budget and 2^b values a factor (ADMM)."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from atmc_core.config import Training
from atmc_core.factorization import Factors
from atmc_core.model import Classifier
from atmc_core.projection import quantize, requantize
from atmc_core.structure import Structure
from atmc_core.training import (
    State,
    Trainable,
    clone_state,
    make_optimizer,
    optimizer_step,
    statistics,
)

# Power of what is left of the shrinking steps, in the share of the budget that is left to lose.
_POWERS = {"cubic": 3, "linear": 1}


class FactorizedWeights:
    """Conv and linear weights held as U, V and C, composed into the classifier's parameters.

    Attributes:
        others: the classifier's other parameters.
    """

    def __init__(self, classifier: Classifier, factors: dict[str, Factors]) -> None:
        self.classifier = classifier
        self.factors = factors
        parameters = dict(classifier.network.named_parameters())
        self.composed = {name: parameters.pop(name) for name in factors}
        self.others = list(parameters.values())
        self.compose()

    def factor_tensors(self) -> list[Tensor]:
        """U, V and C of every weight in turn."""
        return [tensor for factors in self.factors.values() for tensor in factors.tensors]

    def used_tensors(self) -> list[Tensor]:
        """Those of them that may hold anything."""
        return [f.tensors[role] for f in self.factors.values() for role in f.used]

    @torch.no_grad()
    def compose(self) -> None:
        """Write W = UV + C into the network."""
        for name, factors in self.factors.items():
            self.composed[name].copy_(factors.compose())

    def gradients(self) -> Iterator[tuple[Factors, tuple[Tensor, Tensor, Tensor]]]:
        """Each weight's factors and the gradients in them; W's own is freed."""
        for name, factors in self.factors.items():
            weight = self.composed[name]
            assert weight.grad is not None
            yield factors, factors.gradients(weight.grad)
            weight.grad = None

    def averaged(self) -> list[Tensor]:
        return [*self.used_tensors(), *self.others, *statistics(self.classifier)]

    def refresh(self) -> None:
        """W follows its factors."""
        self.compose()

    def model_state(self) -> State:
        """Factors and the rest of the network: all that the artifact needs."""
        return {
            "factors": [tensor.clone() for tensor in self.factor_tensors()],
            "network": clone_state(self.classifier.network),
        }

    def here(self, tensors: list[Tensor]) -> list[Tensor]:
        """A checkpoint's tensors, which may be on the CPU, on the network's device."""
        device = next(self.classifier.parameters()).device
        return [tensor.to(device) for tensor in tensors]

    def restore_model(self, state: State) -> None:
        for tensor, saved in zip(self.factor_tensors(), state["factors"], strict=True):
            tensor.copy_(saved)
        self.classifier.network.load_state_dict(state["network"])


class AdmmWeights(FactorizedWeights, Trainable):
    """U, V and C on their way into both constraints.

    After each optimiser step the entries that contribute least are set to zero, jointly over all
    tensors, down to a budget that shrinks to k, along a cubic by default (Zhu and Gupta, 2017). For
    codebooks, theta' is the nearest quantised point of theta + u and u the scaled dual; both are
    renewed every ``dual_interval`` steps, and the penalty rho/2 ||theta - theta' + u||^2 pulls in
    between.

    Memory: for each entry the value, its momentum, and for codebooks the dual and the point that
    the penalty pulls to; gradients exist for one weight at a time.

    Args:
        bits: below 16 there are codebooks; 16 and 32 have no penalty.
        steps: optimiser steps in all.
        structure: what is kept or dropped under the budget; by default single entries.
    """

    def __init__(
        self,
        classifier: Classifier,
        factors: dict[str, Factors],
        *,
        k: int,
        bits: int,
        training: Training,
        steps: int,
        structure: Structure | None = None,
    ) -> None:
        super().__init__(classifier, factors)
        self.k, self.bits, self.training = k, bits, training
        self.structure = structure or Structure()
        shrinks = training.density_schedule != "none"
        self.shrink_steps = round(training.shrink_fraction * steps) if shrinks else 0
        self.start_budget = sum(int(t.count_nonzero()) for t in self.used_tensors())
        self.optimizers = [
            make_optimizer([f.tensors[role] for role in f.used], training) for f in factors.values()
        ]
        self.other_optimizer = make_optimizer(self.others, training)
        self.step = 0
        # Of the used tensors in turn: the scaled dual, theta' - u, and the last codebook.
        self.duals: list[Tensor] = []
        self.anchors: list[Tensor] = []
        self.codebooks: list[Tensor] = []
        if self.quantized:
            self.duals = [torch.zeros_like(tensor) for tensor in self.used_tensors()]
            self._project(self.budget())
            self._renew_duals()
            self.compose()

    @property
    def quantized(self) -> bool:
        return self.bits <= 8

    @property
    def at_target(self) -> bool:
        """Whether the budget has shrunk to k."""
        return self.step >= self.shrink_steps

    def aim_at(self, k: int) -> None:
        """Change the budget to shrink to; once there, fewer are at once no more than that."""
        self.k = k
        if self.at_target:
            self._project(k)
            self.compose()

    def budget(self) -> int:
        """Non-zeros allowed after this step."""
        if self.step >= self.shrink_steps:
            return self.k
        left = (1 - self.step / self.shrink_steps) ** _POWERS[self.training.density_schedule]
        return self.k + round((max(self.start_budget, self.k) - self.k) * left)

    @torch.no_grad()
    def update(self, learning_rate: float) -> None:
        anchors = iter(self.anchors)
        for optimizer, (factors, gradients) in zip(self.optimizers, self.gradients(), strict=True):
            effects = factors.effects()
            for role in factors.used:
                tensor, gradient = factors.tensors[role], gradients[role]
                if self.quantized:
                    gradient.add_(tensor - next(anchors), alpha=self.training.rho)
                tensor.grad = gradient.div_(effects[role].square().clamp_min(1))
            optimizer_step(optimizer, learning_rate)
        optimizer_step(self.other_optimizer, learning_rate)
        self.step += 1
        self._project(self.budget())
        if self.quantized and self.step % self.training.dual_interval == 0:
            self._renew_duals()
        self.compose()

    def _project(self, budget: int) -> None:
        self.structure.shrink(self.factors, budget)

    def _renew_duals(self) -> None:
        # Afresh where the last codebooks no longer fit: at the start, and once the budget is k.
        fresh = not self.codebooks or (
            0 <= self.step - self.shrink_steps < self.training.dual_interval
        )
        self.codebooks = self.codebooks or [t.new_zeros(0) for t in self.duals]
        self.anchors = self.anchors or [torch.empty_like(t) for t in self.duals]
        for index, (tensor, dual) in enumerate(zip(self.used_tensors(), self.duals, strict=True)):
            point = dual.add_(tensor)
            if fresh:
                target = quantize(point, self.bits)
            else:
                target = requantize(point, self.codebooks[index])
            self.codebooks[index] = target.codebook
            dual.sub_(target.values)
            torch.sub(target.values, dual, out=self.anchors[index])

    @torch.no_grad()
    def feasible_weights(self) -> dict[str, Tensor]:
        """The weights at the nearest point that meets both constraints, by name."""
        if not self.quantized:
            return {}
        codebooks = iter(self.codebooks)
        feasible = {}
        for name, factors in self.factors.items():
            tensors = list(factors.tensors)
            for role in factors.used:
                tensors[role] = quantize(tensors[role], self.bits, start=next(codebooks)).values
            u, v, c = tensors
            feasible[name] = replace(factors, u=u, v=v, c=c).compose()
        return feasible

    def state(self) -> State:
        return self.model_state() | {
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "other_optimizer": self.other_optimizer.state_dict(),
            "step": self.step,
            "k": self.k,
            "start_budget": self.start_budget,
            "duals": self.duals,
            "anchors": self.anchors,
            "codebooks": self.codebooks,
        }

    def restore(self, state: State) -> None:
        self.restore_model(state)
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.other_optimizer.load_state_dict(state["other_optimizer"])
        self.step, self.k, self.start_budget = state["step"], state["k"], state["start_budget"]
        for name in ("duals", "anchors", "codebooks"):
            setattr(self, name, self.here(state[name]))


class SharedWeights(FactorizedWeights, Trainable):
    """The end game: supports and assignments are frozen, so both constraints hold exactly.

    What is left to train are the values that the entries of a factor share, the biases and the
    norms. A shared value moves by the *mean* gradient of its entries: that is plain SGD projected
    onto the subspace that the assignment spans. At 32 and 16 bits every non-zero has its own value;
    at 16 the network always sees it rounded to float16, while the optimiser's own copy keeps the
    steps that are too small to show.

    Attributes:
        supports, codes, values: of the used tensors in turn; the flat places of the non-zeros,
            which value each has, and the values.
    """

    def __init__(
        self, classifier: Classifier, factors: dict[str, Factors], *, bits: int, training: Training
    ) -> None:
        super().__init__(classifier, factors)
        self.bits = bits
        self.supports: list[Tensor] = []
        self.codes: list[Tensor] = []
        self.values: list[Tensor] = []
        for tensor in self.used_tensors():
            self._freeze(tensor.view(-1))
        self.optimizer = make_optimizer([*self.values, *self.others], training)
        self._spread()

    def _freeze(self, flat: Tensor) -> None:
        support = flat.nonzero()[:, 0]
        kept = flat[support]
        if self.bits <= 8:
            values = quantize(kept, self.bits)
            # The codebook projection may move an entry to zero: it leaves the support.
            support, kept = support[values.values != 0], values.values[values.values != 0]
            codebook, codes = torch.unique(kept, return_inverse=True)
        else:
            codebook, codes = kept.clone(), torch.arange(len(kept), device=kept.device)
        self.supports.append(support)
        self.codes.append(codes)
        self.values.append(codebook)

    def _spread(self) -> None:
        """Write the shared values into U, V and C, and those into the network."""
        for tensor, support, codes, values in zip(
            self.used_tensors(), self.supports, self.codes, self.values, strict=True
        ):
            shown = values.half().float() if self.bits == 16 else values
            tensor.zero_()
            tensor.view(-1)[support] = shown[codes]
        self.compose()

    @torch.no_grad()
    def update(self, learning_rate: float) -> None:
        shared = zip(self.supports, self.codes, self.values, strict=True)
        for factors, gradients in self.gradients():
            for role in factors.used:
                support, codes, values = next(shared)
                gradient = gradients[role].reshape(-1)[support]
                total = torch.zeros_like(values).index_add_(0, codes, gradient)
                count = torch.zeros_like(values).index_add_(0, codes, torch.ones_like(gradient))
                values.grad = total / count
        optimizer_step(self.optimizer, learning_rate)
        self._spread()

    def averaged(self) -> list[Tensor]:
        return [*self.values, *self.others, *statistics(self.classifier)]

    def refresh(self) -> None:
        self._spread()

    def state(self) -> State:
        return self.model_state() | {
            "optimizer": self.optimizer.state_dict(),
            "supports": self.supports,
            "codes": self.codes,
            "values": self.values,
        }

    def restore(self, state: State) -> None:
        self.restore_model(state)
        self.optimizer.load_state_dict(state["optimizer"])
        self.supports, self.codes = self.here(state["supports"]), self.here(state["codes"])
        for value, saved in zip(self.values, state["values"], strict=True):
            value.copy_(saved)
