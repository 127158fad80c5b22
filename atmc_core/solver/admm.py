"""ATMC's solver: ADMM trains U, V and C under one budget of non-zeros and 2^b values a factor."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from atmc_core.factors.factors import NamedFactors
from atmc_core.solver.optimizer import OptimizerFactory, optimizer_step, sgd
from atmc_core.solver.projection import padded, quantize, requantize
from atmc_core.solver.support import Structure
from atmc_core.solver.weights import FactorizedWeights, State, Trainable
from atmc_spec import defaults
from atmc_spec.names import MAX_CODEBOOK_BITS, DensitySchedule

# The share of non-zeros still to be dropped is the share of shrinking steps still to come, raised
# to this power.
_POWERS = {"cubic": 3, "linear": 1}


@dataclass(frozen=True)
class AdmmOptions:
    """How the solver approaches the constraints.

    Attributes:
        rho: the weight of the penalty on the distance to the quantised point.
        dual_interval: the optimiser steps between two renewals of the quantised point and the dual.
        density_schedule: the curve along which the number of non-zeros shrinks from dense to k;
            with ``none`` it is k from the start.
        shrink_fraction: the share of the steps in which it shrinks, 0 to 1.
    """

    rho: float = defaults.RHO
    dual_interval: int = defaults.DUAL_INTERVAL
    density_schedule: DensitySchedule = defaults.DENSITY_SCHEDULE
    shrink_fraction: float = defaults.SHRINK_FRACTION


class AdmmWeights(FactorizedWeights, Trainable):
    """U, V and C that training brings under both constraints.

    After each optimiser step the entries that contribute least are set to zero, jointly over all
    tensors, down to a budget that shrinks to k, along a cubic by default (Zhu and Gupta, 2017). If
    there are codebooks, the solver also keeps the scaled dual u and the quantised point theta'
    nearest to theta + u. Both are renewed every ``dual_interval`` steps; in between, the penalty
    rho/2 ||theta - theta' + u||^2 pulls the entries theta towards theta' - u. ADMM as in Gui et
    al., 2019.

    Memory: each entry takes its value and its momentum, and with codebooks also the dual and the
    point that the penalty pulls to. During an update it takes a gradient too, whose memory the
    projections reuse.

    Args:
        k: the budget that training shrinks to: the non-zeros allowed in all factors together.
        bits: with up to 8 each tensor has a codebook of 2^bits values; 16 and 32 have no penalty.
        steps: the optimiser steps that there will be in all.
        optimizer: makes the optimiser of the factors and the other parameters; SGD by default.
        structure: what is kept or dropped under the budget; single entries by default.

    Attributes:
        steps_done: the optimiser steps taken so far.
        start_budget: the non-zeros at the start, from which the budget shrinks.
        decoupled: whether the penalty is a step of its own and no part of the gradient.
        dual: the scaled dual u of each pooled entry; empty without codebooks.
        anchor: the point theta' - u that the penalty pulls each entry to; empty likewise.
        codebooks: each tensor's last codebook, ``[T, 2^bits]``, as ``projection.padded`` fills it.
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
        self.decoupled = not isinstance(self.optimizer, torch.optim.SGD)
        self.steps_done = 0
        self.dual = self.anchor = self.codebooks = self.pool.flat.new_zeros(0)
        if self.quantized:
            self.dual = torch.zeros_like(self.pool.flat)
            self.anchor = torch.empty_like(self.pool.flat)
            self._project(self.budget())
            self._renew_duals()
            self.compose()

    @property
    def quantized(self) -> bool:
        """Whether the tensors have codebooks."""
        return self.bits <= MAX_CODEBOOK_BITS

    @property
    def at_target(self) -> bool:
        """Whether the budget has shrunk to k."""
        return self.steps_done >= self.shrink_steps

    def aim_at(self, k: int) -> None:
        """Change the k that the budget shrinks to; if it is there already, project at once."""
        self.k = k
        if self.at_target:
            self._project(k)
            self.compose()

    def budget(self) -> int:
        """The non-zeros allowed now, after ``steps_done`` steps."""
        if self.at_target:
            return self.k
        left = (1 - self.steps_done / self.shrink_steps) ** _POWERS[self.options.density_schedule]
        return self.k + round((max(self.start_budget, self.k) - self.k) * left)

    @torch.no_grad()
    def update(self, learning_rate: float | None = None) -> None:
        """Take one step on U, V and C, prune them to the budget, and renew the dual when it is due.

        SGD sees the penalty's gradient beside the loss's, both divided by squared effects. Any
        other optimiser scales each entry's gradient by its own history, so where the loss is flat
        the penalty would move an entry by whole steps; there it is a step of its own, as weight
        decay is in AdamW (Loshchilov & Hutter, 2019).
        """
        gradient = torch.empty_like(self.pool.flat)
        self.write_gradients(gradient)
        if self.quantized and not self.decoupled:
            gradient.add_(self.pool.flat, alpha=self.options.rho)
            gradient.sub_(self.anchor, alpha=self.options.rho)
        for part, squares in self.squared_effects(gradient):
            part.div_(squares)
        self.pool.flat.grad = gradient
        optimizer_step(self.optimizer, learning_rate)
        if self.quantized and self.decoupled:
            rate = self.optimizer.param_groups[0]["lr"]
            self.pool.flat.lerp_(self.anchor, min(1.0, rate * self.options.rho))
        self.steps_done += 1
        self._project(self.budget(), scratch=gradient)
        if self.quantized and self.steps_done % self.options.dual_interval == 0:
            self._renew_duals(scratch=gradient)
        self.compose()

    def _project(self, budget: int, scratch: Tensor | None = None) -> None:
        self.structure.shrink(self.factors, budget, scratch)

    def _renew_duals(self, scratch: Tensor | None = None) -> None:
        """Set theta' to the quantised point nearest to theta + u, and add the rest to the dual."""
        # Codebooks are fitted afresh at the start and when the budget has just become k, since the
        # last ones do not fit then. Otherwise they are refined from the last ones.
        fresh = not len(self.codebooks) or (
            0 <= self.steps_done - self.shrink_steps < self.options.dual_interval
        )
        shifted = self.dual.add_(self.pool.flat)
        nearest = torch.empty_like(shifted) if scratch is None else scratch
        if fresh:
            codebooks = []
            for own, out in zip(self.pool.views(shifted), self.pool.views(nearest), strict=True):
                quantized = quantize(own, self.bits)
                out.copy_(quantized.values)
                codebooks.append(padded(quantized.codebook, self.bits))
            self.codebooks = torch.stack(codebooks)
        else:
            self.codebooks = requantize(shifted, self.pool.ends, self.codebooks, out=nearest)
        self.dual.sub_(nearest)
        torch.sub(nearest, self.dual, out=self.anchor)

    @torch.no_grad()
    def feasible_weights(self) -> dict[str, Tensor]:
        """The weights with U, V and C quantised, by name, in their own shapes.

        Without codebooks there are none: the network's present weights are feasible once the budget
        is k.
        """
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
