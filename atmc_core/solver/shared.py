"""The end game: supports and codes are frozen, and the values that entries share are trained."""

import torch
from torch import Tensor, nn

from atmc_core.factors.factors import NamedFactors
from atmc_core.networks.classifier import statistics
from atmc_core.solver.optimizer import OptimizerFactory, optimizer_step, sgd
from atmc_core.solver.projection import quantize
from atmc_core.solver.rounding import rounded, to_half
from atmc_core.solver.weights import FactorizedWeights, State, Trainable
from atmc_spec.names import FLOAT_BITS, MAX_CODEBOOK_BITS, SmallTensorBits


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
        small_tensor_bits: below 32 the network sees codebooks and all its other parameters rounded,
            too (``solver.rounding``), while the optimiser moves float32 copies.
        optimizer: makes the optimiser of the values and the other parameters; SGD by default.

    Attributes:
        supports: the index in the pool of each of the n non-zeros, int64 ``[n]``.
        codes: the index into ``values`` of each non-zero, int64 ``[n]``.
        values: the values of all tensors, one tensor after the other, float32.
        free: what the optimiser moves of the network's ``others``: these themselves, or copies.
    """

    def __init__(
        self,
        network: nn.Module,
        factors: NamedFactors,
        *,
        bits: int,
        small_tensor_bits: SmallTensorBits = FLOAT_BITS,
        optimizer: OptimizerFactory | None = None,
    ) -> None:
        super().__init__(network, factors)
        self.bits, self.small_tensor_bits = bits, small_tensor_bits
        self._rounds = small_tensor_bits < FLOAT_BITS
        self._rounds_values = bits == 16 or (self._rounds and bits <= MAX_CODEBOOK_BITS)
        self.free = [p.detach().clone() for p in self.others] if self._rounds else self.others
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
        self.optimizer = self._make_optimizer([self.values, *self.free])
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

    @torch.no_grad()
    def _spread(self) -> None:
        """Write the shared values into U, V and C, compose the network's weights, and round."""
        shown = to_half(self.values) if self._rounds_values else self.values
        self.pool.flat.zero_()
        self.pool.flat[self.supports] = shown[self.codes]
        self.compose()
        if self._rounds:
            for name, parameter, free in zip(self.other_names, self.others, self.free, strict=True):
                parameter.copy_(rounded(name, free, self.small_tensor_bits))

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
        if self._rounds:
            for parameter, free in zip(self.others, self.free, strict=True):
                free.grad, parameter.grad = parameter.grad, None
        optimizer_step(self.optimizer, learning_rate)
        self._spread()

    def averaged(self) -> list[Tensor]:
        return [self.values, *self.free, *statistics(self.network)]

    def refresh(self) -> None:
        self._spread()

    def state_dict(self) -> State:
        return (
            self.model_state()
            | {
                "optimizer": self.optimizer.state_dict(),
                "supports": self.supports,
                "codes": self.codes,
                "values": self.values,
            }
            | ({"free": self.free} if self._rounds else {})
        )

    def load_state_dict(self, state_dict: State) -> None:
        self.restore_model(state_dict)
        if len(state_dict["values"]) != len(self.values):
            # Values of one tensor that became equal in training were read from the factors as one
            # value here, so the number of values differs from the state's.
            self.values = torch.empty_like(state_dict["values"], device=self.values.device)
            self.optimizer = self._make_optimizer([self.values, *self.free])
        self.optimizer.load_state_dict(state_dict["optimizer"])
        for name in ("supports", "codes"):
            setattr(self, name, state_dict[name].to(self.values.device))
        self.values.copy_(state_dict["values"])
        for free, saved in zip(self.free, state_dict.get("free", ()), strict=self._rounds):
            free.copy_(saved)
