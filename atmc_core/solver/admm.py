"""ATMC's solver: U, V and C trained under one l0 budget and 2^b values a factor (ADMM)."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from atmc_core.factors.factors import NamedFactors
from atmc_core.solver.optimizer import OptimizerFactory, optimizer_step, sgd
from atmc_core.solver.projection import padded, quantize, requantize
from atmc_core.solver.support import Structure
from atmc_core.solver.weights import FactorizedWeights, State, Trainable
from atmc_spec import defaults
from atmc_spec.names import DensitySchedule

# Power of what is left of the shrinking steps, in the share of the budget that is left to lose.
_POWERS = {"cubic": 3, "linear": 1}


@dataclass(frozen=True)
class AdmmOptions:
    """How the constraints come to hold.

    Attributes:
        rho: weight of the penalty.
        dual_interval: steps between two renewals of theta' and the dual.
        density_schedule: how the number of non-zeros shrinks from dense to k.
        shrink_fraction: share of the steps in which it does.
    """

    rho: float = defaults.RHO
    dual_interval: int = defaults.DUAL_INTERVAL
    density_schedule: DensitySchedule = defaults.DENSITY_SCHEDULE
    shrink_fraction: float = defaults.SHRINK_FRACTION


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
        optimizer: makes the optimiser of the factors and the other parameters; SGD by default.
        structure: what is kept or dropped under the budget; by default single entries.
    """

    def __init__(
        self,
        network: nn.Module,
        factors: NamedFactors,
        *,
        k: int,
        bits: int,
        steps: int,
        options: AdmmOptions | None = None,
        optimizer: OptimizerFactory | None = None,
        structure: Structure | None = None,
    ) -> None:
        super().__init__(network, factors)
        self.k, self.bits, self.options = k, bits, options or AdmmOptions()
        self.structure = structure or Structure()
        shrinks = self.options.density_schedule != "none"
        self.shrink_steps = round(self.options.shrink_fraction * steps) if shrinks else 0
        self.start_budget = int(self.pool.flat.count_nonzero())
        self.optimizer = (optimizer or sgd())([self.pool.flat, *self.others])
        self.steps_done = 0
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
        return self.steps_done >= self.shrink_steps

    def aim_at(self, k: int) -> None:
        """Change the budget to shrink to; once there, fewer are at once no more than that."""
        self.k = k
        if self.at_target:
            self._project(k)
            self.compose()

    def budget(self) -> int:
        """Non-zeros allowed after this step."""
        if self.steps_done >= self.shrink_steps:
            return self.k
        left = (1 - self.steps_done / self.shrink_steps) ** _POWERS[self.options.density_schedule]
        return self.k + round((max(self.start_budget, self.k) - self.k) * left)

    @torch.no_grad()
    def update(self, learning_rate: float | None = None) -> None:
        gradient = torch.empty_like(self.pool.flat)
        self.write_gradients(gradient)
        if self.quantized:
            gradient.add_(self.pool.flat, alpha=self.options.rho)
            gradient.sub_(self.anchor, alpha=self.options.rho)
        for part, square in self.reaches(gradient):
            part.div_(square)
        self.pool.flat.grad = gradient
        optimizer_step(self.optimizer, learning_rate)
        self.steps_done += 1
        self._project(self.budget(), scratch=gradient)
        if self.quantized and self.steps_done % self.options.dual_interval == 0:
            self._renew_duals(scratch=gradient)
        self.compose()

    def _project(self, budget: int, scratch: Tensor | None = None) -> None:
        self.structure.shrink(self.factors, budget, scratch)

    def _renew_duals(self, scratch: Tensor | None = None) -> None:
        # Afresh where the last codebooks no longer fit: at the start, and once the budget is k.
        fresh = not len(self.codebooks) or (
            0 <= self.steps_done - self.shrink_steps < self.options.dual_interval
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

    def state_dict(self) -> State:
        return self.model_state() | {
            "optimizer": self.optimizer.state_dict(),
            "steps_done": self.steps_done,
            "k": self.k,
            "start_budget": self.start_budget,
            "dual": self.dual,
            "anchor": self.anchor,
            "codebooks": self.codebooks,
        }

    def load_state_dict(self, state_dict: State) -> None:
        self.restore_model(state_dict)
        self.optimizer.load_state_dict(state_dict["optimizer"])
        self.steps_done, self.k = state_dict["steps_done"], state_dict["k"]
        self.start_budget = state_dict["start_budget"]
        for name in ("dual", "anchor", "codebooks"):
            setattr(self, name, state_dict[name].to(self.pool.flat.device))
