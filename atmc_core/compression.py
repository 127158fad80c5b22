"""ATMC's solver: U, V and C trained under one l0 budget and 2^b values a factor (ADMM)."""

from itertools import compress

import torch
from torch import Tensor

from atmc_core.config import Training
from atmc_core.factorization import Factors
from atmc_core.model import Classifier
from atmc_core.projection import keep_largest, quantize
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
    """Weights held as U, V and C; the leaves are these and the classifier's other parameters."""

    def __init__(self, classifier: Classifier, factors: dict[str, Factors]) -> None:
        self.classifier = classifier
        self.factors = factors
        own = {f"network.{name}" for name in factors}
        self.others = [p for name, p in classifier.named_parameters() if name not in own]
        for tensor in self.factor_tensors():
            tensor.requires_grad_()

    def factor_tensors(self) -> list[Tensor]:
        """U, V and C of every weight in turn."""
        return [tensor for factors in self.factors.values() for tensor in factors.tensors]

    def weights(self) -> dict[str, Tensor]:
        return {name: factors.compose() for name, factors in self.factors.items()}

    def leaves(self) -> list[Tensor]:
        return [*self.factor_tensors(), *self.others]

    def averaged(self) -> list[Tensor]:
        return [*self.leaves(), *statistics(self.classifier)]

    def refresh(self) -> None:
        """Factors and other parameters are the averaged tensors themselves."""

    def model_state(self) -> State:
        """Factors and the rest of the network: all that the artifact needs."""
        return {
            "factors": [tensor.detach().clone() for tensor in self.factor_tensors()],
            "network": clone_state(self.classifier.network),
        }

    @torch.no_grad()
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

    Args:
        bits: below 16 there are codebooks; 16 and 32 have no penalty.
        steps: optimiser steps in all.
        factorised: if not, only the factor that the identity passes on takes part, and the others
            stay zero: then this is l0-projected training of the plain weights.
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
        factorised: bool = True,
    ) -> None:
        super().__init__(classifier, factors)
        self.k, self.bits, self.training = k, bits, training
        self.taking_part = [
            factorised or tensor is f.carried for f in factors.values() for tensor in f.tensors
        ]
        shrinks = training.density_schedule != "none"
        self.shrink_steps = round(training.shrink_fraction * steps) if shrinks else 0
        self.start_budget = sum(int(t.count_nonzero()) for t in self.factor_tensors())
        self.optimizer = make_optimizer(self.leaves(), training)
        self.step = 0
        # The point that the penalty pulls to, theta' - u, and the last codebooks.
        self.anchors: list[Tensor] = []
        self.duals: list[Tensor] = []
        self.codebooks: list[Tensor] = []
        if self.quantized:
            self.duals = [torch.zeros_like(t) for t in self.factor_tensors()]
            self._project(self.budget())
            self._renew_duals()

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

    def budget(self) -> int:
        """Non-zeros allowed after this step."""
        if self.step >= self.shrink_steps:
            return self.k
        left = (1 - self.step / self.shrink_steps) ** _POWERS[self.training.density_schedule]
        return self.k + round((max(self.start_budget, self.k) - self.k) * left)

    @torch.no_grad()
    def update(self, learning_rate: float) -> None:
        if self.quantized:
            for tensor, anchor in zip(self.factor_tensors(), self.anchors, strict=True):
                assert tensor.grad is not None
                tensor.grad.add_(tensor - anchor, alpha=self.training.rho)
        for factors in self.factors.values():
            for tensor, effect in zip(factors.tensors, factors.effects(), strict=True):
                assert tensor.grad is not None
                tensor.grad.div_(effect.square().clamp_min(1))
        optimizer_step(self.optimizer, learning_rate)
        self.step += 1
        self._project(self.budget())
        if self.quantized and self.step % self.training.dual_interval == 0:
            self._renew_duals()

    @torch.no_grad()
    def _project(self, budget: int) -> None:
        scores = [score for factors in self.factors.values() for score in factors.scores()]
        masks = iter(keep_largest(list(compress(scores, self.taking_part)), budget))
        for tensor, takes_part in zip(self.factor_tensors(), self.taking_part, strict=True):
            tensor.mul_(next(masks) if takes_part else 0)

    @torch.no_grad()
    def _renew_duals(self) -> None:
        last: list[Tensor | None] = [*self.codebooks] or [None] * len(self.duals)
        self.anchors, self.codebooks = [], []
        for tensor, dual, codebook in zip(self.factor_tensors(), self.duals, last, strict=True):
            target = quantize(tensor + dual, self.bits, start=codebook)
            dual.add_(tensor).sub_(target.values)
            self.anchors.append(target.values - dual)
            self.codebooks.append(target.codebook)

    @torch.no_grad()
    def feasible_weights(self) -> dict[str, Tensor]:
        """The weights at the nearest point that meets both constraints."""
        if not self.quantized:
            return self.weights()
        codebooks = iter(self.codebooks)
        return {
            name: Factors(
                factors.view,
                *(quantize(t, self.bits, start=next(codebooks)).values for t in factors.tensors),
            ).compose()
            for name, factors in self.factors.items()
        }

    def state(self) -> State:
        return self.model_state() | {
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "k": self.k,
            "start_budget": self.start_budget,
            "duals": self.duals,
            "anchors": self.anchors,
            "codebooks": self.codebooks,
        }

    def restore(self, state: State) -> None:
        self.restore_model(state)
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.k, self.start_budget = state["step"], state["k"], state["start_budget"]
        self.duals, self.anchors = state["duals"], state["anchors"]
        self.codebooks = state["codebooks"]


class SharedWeights(FactorizedWeights, Trainable):
    """The end game: supports and assignments are frozen, so both constraints hold exactly.

    What is left to train are the values that the entries of a factor share, the biases and the
    norms. A shared value moves by the *mean* gradient of its entries: that is plain SGD projected
    onto the subspace that the assignment spans. At 32 and 16 bits every non-zero has its own value;
    at 16 the network always sees it rounded to float16, while the optimiser's own copy keeps the
    steps that are too small to show.
    """

    def __init__(
        self, classifier: Classifier, factors: dict[str, Factors], *, bits: int, training: Training
    ) -> None:
        super().__init__(classifier, factors)
        self.bits = bits
        self.supports: list[Tensor] = []
        self.codes: list[Tensor] = []
        self.values: list[Tensor] = []
        for tensor in self.factor_tensors():
            self._freeze(tensor.detach().view(-1))
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
        self.values.append(codebook.requires_grad_())

    @torch.no_grad()
    def _spread(self) -> None:
        """Write the shared values into U, V and C."""
        for tensor, support, codes, values in zip(
            self.factor_tensors(), self.supports, self.codes, self.values, strict=True
        ):
            shown = values.half().float() if self.bits == 16 else values
            tensor.zero_()
            tensor.view(-1)[support] = shown[codes]

    @torch.no_grad()
    def update(self, learning_rate: float) -> None:
        for tensor, support, codes, values in zip(
            self.factor_tensors(), self.supports, self.codes, self.values, strict=True
        ):
            assert tensor.grad is not None
            gradient = tensor.grad.view(-1)[support]
            total = torch.zeros_like(values).index_add_(0, codes, gradient)
            count = torch.zeros_like(values).index_add_(0, codes, torch.ones_like(gradient))
            values.grad = total / count
            tensor.grad = None
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
            "values": [value.detach() for value in self.values],
        }

    @torch.no_grad()
    def restore(self, state: State) -> None:
        self.restore_model(state)
        self.optimizer.load_state_dict(state["optimizer"])
        self.supports, self.codes = state["supports"], state["codes"]
        for value, saved in zip(self.values, state["values"], strict=True):
            value.copy_(saved)
