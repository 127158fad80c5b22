"""ATMC's solver: U, V and C trained under one l0 budget and 2^b values a factor (ADMM)."""

from dataclasses import replace

import torch
from torch import Tensor

from atmc_core.factors.factors import Factors
from atmc_core.networks.classifier import Classifier
from atmc_core.solver.optimizer import make_optimizer, optimizer_step
from atmc_core.solver.projection import padded, quantize, requantize
from atmc_core.solver.support import Structure
from atmc_core.solver.weights import FactorizedWeights, State, Trainable
from atmc_spec import Training

# Power of what is left of the shrinking steps, in the share of the budget that is left to lose.
_POWERS = {"cubic": 3, "linear": 1}


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
