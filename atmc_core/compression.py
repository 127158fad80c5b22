"""ATMC's solver: U, V and C trained under one l0 budget and 2^b values a factor (ADMM)."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from atmc_core.config import Training
from atmc_core.factorization import Factors
from atmc_core.model import Classifier
from atmc_core.pool import Pool
from atmc_core.projection import padded, quantize, requantize
from atmc_core.state_dict import load_tensors
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
        return [self.pool.flat, *self.others, *statistics(self.classifier)]

    def refresh(self) -> None:
        """W follows its factors."""
        self.compose()

    def model_state(self) -> State:
        """Factors and the rest of the network: all that the artifact needs."""
        return {
            "factors": [own.state() for own in self.factors.values()],
            "network": clone_state(self.classifier.network),
        }

    def restore_model(self, state: State) -> None:
        for own, saved in zip(self.factors.values(), state["factors"], strict=True):
            own.restore(saved)
        load_tensors(self.classifier.network, state["network"])


class AdmmWeights(FactorizedWeights, Trainable):
    """U, V and C on their way into both constraints.

    After each optimiser step the entries that contribute least are set to zero, jointly over all
    tensors, down to a budget that shrinks to k, along a cubic by default (Zhu and Gupta, 2017). For
    codebooks, theta' is the nearest quantised point of theta + u and u the scaled dual; both are
    renewed every ``dual_interval`` steps, and the penalty rho/2 ||theta - theta' + u||^2 pulls in
    between.

    Memory: for each entry the value, its momentum, and for codebooks the dual and the point that
    the penalty pulls to; during an update also its gradient, whose memory the projections use, too.

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
        self.structure = structure or Structure(training.importance)
        shrinks = training.density_schedule != "none"
        self.shrink_steps = round(training.shrink_fraction * steps) if shrinks else 0
        self.start_budget = int(self.pool.flat.count_nonzero())
        self.optimizer = make_optimizer([self.pool.flat], training)
        self.other_optimizer = make_optimizer(self.others, training)
        self.step = 0
        # The scaled dual and theta' - u of the pooled entries, and each tensor's last codebook.
        self.dual = self.anchor = self.codebooks = self.pool.flat.new_zeros(0)
        if self.quantized:
            self.dual = torch.zeros_like(self.pool.flat)
            self.anchor = torch.empty_like(self.pool.flat)
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
        gradient = torch.empty_like(self.pool.flat)
        self.write_gradients(gradient)
        if self.quantized:
            gradient.add_(self.pool.flat, alpha=self.training.rho)
            gradient.sub_(self.anchor, alpha=self.training.rho)
        for part, square in self.reaches(gradient):
            part.div_(square)
        self.pool.flat.grad = gradient
        optimizer_step(self.optimizer, learning_rate)
        optimizer_step(self.other_optimizer, learning_rate)
        self.step += 1
        self._project(self.budget(), scratch=gradient)
        if self.quantized and self.step % self.training.dual_interval == 0:
            self._renew_duals(scratch=gradient)
        self.compose()

    def _project(self, budget: int, scratch: Tensor | None = None) -> None:
        self.structure.shrink(self.factors, budget, scratch)

    def _renew_duals(self, scratch: Tensor | None = None) -> None:
        # Afresh where the last codebooks no longer fit: at the start, and once the budget is k.
        fresh = not len(self.codebooks) or (
            0 <= self.step - self.shrink_steps < self.training.dual_interval
        )
        point = self.dual.add_(self.pool.flat)
        target = torch.empty_like(point) if scratch is None else scratch
        if fresh:
            codebooks = []
            for own, aim in zip(self.pool.views(point), self.pool.views(target), strict=True):
                quantized = quantize(own, self.bits)
                aim.copy_(quantized.values)
                codebooks.append(padded(quantized.codebook, self.bits))
            self.codebooks = torch.stack(codebooks)
        else:
            self.codebooks = requantize(point, self.pool.ends, self.codebooks, out=target)
        self.dual.sub_(target)
        torch.sub(target, self.dual, out=self.anchor)

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
            "optimizer": self.optimizer.state_dict(),
            "other_optimizer": self.other_optimizer.state_dict(),
            "step": self.step,
            "k": self.k,
            "start_budget": self.start_budget,
            "dual": self.dual,
            "anchor": self.anchor,
            "codebooks": self.codebooks,
        }

    def restore(self, state: State) -> None:
        self.restore_model(state)
        self.optimizer.load_state_dict(state["optimizer"])
        self.other_optimizer.load_state_dict(state["other_optimizer"])
        self.step, self.k, self.start_budget = state["step"], state["k"], state["start_budget"]
        for name in ("dual", "anchor", "codebooks"):
            setattr(self, name, state[name].to(self.pool.flat.device))


class SharedWeights(FactorizedWeights, Trainable):
    """The end game: supports and assignments are frozen, so both constraints hold exactly.

    What is left to train are the values that the entries of a factor share, the biases and the
    norms. A shared value moves by the mean gradient of its entries (that is plain SGD projected
    onto the subspace that the assignment spans), over the mean square of their effects. At 32 and
    16 bits every non-zero has its own value; at 16 the network always sees it rounded to float16,
    while the optimiser's own copy keeps the steps that are too small to show.

    Attributes:
        supports, codes, values: the places of the non-zeros in the pool, which value each has, and
            the values of all tensors in turn.
    """

    def __init__(
        self, classifier: Classifier, factors: dict[str, Factors], *, bits: int, training: Training
    ) -> None:
        super().__init__(classifier, factors)
        self.bits = bits
        supports, codes, values = [], [], []
        start = known = 0
        for tensor in self.pool.views(self.pool.flat):
            support, code, value = self._frozen(tensor.view(-1))
            supports.append(support + start)
            codes.append(code + known)
            values.append(value)
            start, known = start + tensor.numel(), known + len(value)
        self.supports, self.codes = torch.cat(supports), torch.cat(codes)
        self.values = torch.cat(values)
        self.optimizer = make_optimizer([self.values, *self.others], training)
        self._spread()

    def _frozen(self, flat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A tensor's support, which value each entry there has, and the values."""
        support = flat.nonzero()[:, 0]
        kept = flat[support]
        if self.bits > 8:
            return support, torch.arange(len(kept), device=kept.device), kept
        nearest = quantize(kept, self.bits).values
        # The codebook projection may move an entry to zero: it leaves the support.
        support, kept = support[nearest != 0], nearest[nearest != 0]
        codebook, codes = torch.unique(kept, return_inverse=True)
        return support, codes, codebook

    def _spread(self) -> None:
        """Write the shared values into U, V and C, and those into the network."""
        shown = self.values.half().float() if self.bits == 16 else self.values
        self.pool.flat.zero_()
        self.pool.flat[self.supports] = shown[self.codes]
        self.compose()

    @torch.no_grad()
    def update(self, learning_rate: float) -> None:
        entries = torch.empty_like(self.pool.flat)
        self.write_gradients(entries)
        gradient = entries[self.supports]
        entries.fill_(1)
        for part, square in self.reaches(entries):
            part.mul_(square)
        total = torch.zeros_like(self.values).index_add_(0, self.codes, gradient)
        length = torch.zeros_like(self.values)
        length.index_add_(0, self.codes, entries[self.supports])
        self.values.grad = total / length
        optimizer_step(self.optimizer, learning_rate)
        self._spread()

    def averaged(self) -> list[Tensor]:
        return [self.values, *self.others, *statistics(self.classifier)]

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
        for name in ("supports", "codes"):
            setattr(self, name, state[name].to(self.values.device))
        self.values.copy_(state["values"])
