"""The end game: supports and codes are frozen, and the values that entries share are trained."""

import torch
from torch import Tensor, nn

from atmc_core.factors.factors import NamedFactors
from atmc_core.networks.classifier import statistics
from atmc_core.solver.optimizer import OptimizerFactory, optimizer_step, sgd
from atmc_core.solver.projection import quantize
from atmc_core.solver.weights import FactorizedWeights, State, Trainable
from atmc_spec.names import MAX_CODEBOOK_BITS


class SharedWeights(FactorizedWeights, Trainable):
    """The weights of the end game: supports and codes are frozen, so both constraints hold exactly.

    Training still moves the values that the entries of a factor share, the biases and the norms. A
    shared value's gradient is the mean gradient of its entries (which is plain SGD projected onto
    the subspace that the codes span), divided by the mean square of their effects on W. At 16 and
    32 bits every non-zero has a value of its own. At 16 bits the network always sees it rounded to
    float16, while the optimiser's copy stays float32, so that small steps are not lost.

    Args:
        factors: keep to k already; the codebook projection may still set entries to zero.
        bits: up to 8 a tensor's entries share 2^bits values.
        optimizer: makes the optimiser of the values and the other parameters; SGD by default.

    Attributes:
        supports: the index in the pool of each of the n non-zeros, int64 ``[n]``.
        codes: the index into ``values`` of each non-zero, int64 ``[n]``.
        values: the values of all tensors, one tensor after the other, float32.
    """

    def __init__(
        self,
        network: nn.Module,
        factors: NamedFactors,
        *,
        bits: int,
        optimizer: OptimizerFactory | None = None,
    ) -> None:
        super().__init__(network, factors)
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
        self._make_optimizer = optimizer or sgd()
        self.optimizer = self._make_optimizer([self.values, *self.others])
        self._spread()

    def _frozen(self, flat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Quantise one flat tensor; its support, the code of each entry there, and the values."""
        support = flat.nonzero()[:, 0]
        kept = flat[support]
        if self.bits > MAX_CODEBOOK_BITS:
            return support, torch.arange(len(kept), device=kept.device), kept
        nearest = quantize(kept, self.bits).values
        # An entry that the codebook projection sets to zero leaves the support.
        support, kept = support[nearest != 0], nearest[nearest != 0]
        codebook, codes = torch.unique(kept, return_inverse=True)
        return support, codes, codebook

    def _spread(self) -> None:
        """Write the shared values into U, V and C, and compose the network's weights from these."""
        shown = self.values.half().float() if self.bits == 16 else self.values
        self.pool.flat.zero_()
        self.pool.flat[self.supports] = shown[self.codes]
        self.compose()

    @torch.no_grad()
    def update(self, learning_rate: float | None = None) -> None:
        """Take one step on the shared values, by their entries' gradients over squared effects."""
        entries = torch.empty_like(self.pool.flat)
        self.write_gradients(entries)
        gradient = entries[self.supports]
        entries.fill_(1)
        for part, squares in self.squared_effects(entries):
            part.mul_(squares)
        total = torch.zeros_like(self.values).index_add_(0, self.codes, gradient)
        length = torch.zeros_like(self.values)
        length.index_add_(0, self.codes, entries[self.supports])
        self.values.grad = total / length
        optimizer_step(self.optimizer, learning_rate)
        self._spread()

    def averaged(self) -> list[Tensor]:
        return [self.values, *self.others, *statistics(self.network)]

    def refresh(self) -> None:
        self._spread()

    def state_dict(self) -> State:
        return self.model_state() | {
            "optimizer": self.optimizer.state_dict(),
            "supports": self.supports,
            "codes": self.codes,
            "values": self.values,
        }

    def load_state_dict(self, state_dict: State) -> None:
        self.restore_model(state_dict)
        if len(state_dict["values"]) != len(self.values):
            # Values of one tensor that became equal in training were read from the factors as one
            # value here, so the number of values differs from the state's.
            self.values = torch.empty_like(state_dict["values"], device=self.values.device)
            self.optimizer = self._make_optimizer([self.values, *self.others])
        self.optimizer.load_state_dict(state_dict["optimizer"])
        for name in ("supports", "codes"):
            setattr(self, name, state_dict[name].to(self.values.device))
        self.values.copy_(state_dict["values"])
