"""How many non-zeros a target leaves: given, or the most that fit a ratio or a file."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from atmc_core import artifact
from atmc_core.artifact import CompressedModel
from atmc_core.errors import InvalidInput
from atmc_core.factors.factors import Factors, NamedFactors
from atmc_core.solver.support import Structure

if TYPE_CHECKING:
    # Not at run time: who saves a file by hand has no spec, and perhaps no pydantic.
    from atmc_spec import Target

# The search for k ends when it is known this closely.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Budget:
    """The k of a target, for a network.

    How large a file or a nominal ratio gets depends on where the non-zeros are, so for those k is
    looked for among actual supports: each is measured with the worst values that it could take.

    Attributes:
        blank: the network as an artifact; its factors' values do not matter.
        most: N, the dense conv and linear weights; k is never above.
        structure: what is kept or dropped; a file without channels has fewer biases, too.
    """

    target: "Target"
    blank: CompressedModel
    most: int
    structure: Structure = field(default_factory=Structure)

    def check(self, least: NamedFactors | None = None) -> None:
        """Check that the target can be met at all.

        Args:
            least: factors with the fewest non-zeros that the method can leave; by default one.

        Raises:
            InvalidInput: ``k_out_of_range``, or ``max_bytes_too_small`` with the least size.
        """
        k = self.target.given_k(self.most)
        least = least or _single(self.blank.factors)
        count = _count(least)
        if k is not None:
            if k < count:
                raise InvalidInput(
                    "k_out_of_range",
                    f"{k} non-zeros asked for; the method leaves {count} at least: ask for as many",
                    "target",
                )
            return
        size = self._measure(least)
        if size <= self._limit:
            return
        if self.target.max_bytes is None:
            enough = math.ceil(size * 1e6) / 1e6  # rounded down it would be refused again
            raise InvalidInput(
                "k_out_of_range",
                f"the {count} non-zeros that the method leaves at least are more than a "
                f"nominal_ratio of {self._limit}: ask for at least {enough:.6f}",
                "target.nominal_ratio",
            )
        raise InvalidInput(
            "max_bytes_too_small",
            f"biases, norms and the least that the method leaves (non-zeros: {count}) take "
            f"{size:,.0f} bytes, more than max_bytes, {self._limit:,}: ask for at least {size:.0f}",
            "target.max_bytes",
        )

    def holds_all(self) -> bool:
        """Whether all weights may stay."""
        given = self.target.given_k(self.most)
        if given is not None:
            return given == self.most
        dense = {name: _filled(factors) for name, factors in self.blank.factors.items()}
        return self._measure(dense) <= self._limit

    def largest(self, kept: Callable[[int], NamedFactors]) -> int:
        """k: the given one, or the largest whose ``kept(k)`` is within the limit.

        Where all there is fits, it is how many would if there were more of the kind.

        Args:
            kept: factors whose non-zeros are those that a budget of k leaves.
        """
        given = self.target.given_k(self.most)
        if given is not None:
            return given
        everything = kept(self.most)
        high, low = _count(everything), 1
        size = {low: self._measure(kept(low)), high: self._measure(everything)}
        if size[high] <= self._limit:
            return min(self.most, high + self._room(kept, high, size[high]))
        halve = False
        while high - low > max(1, _TOLERANCE * low):
            # Size grows nearly in proportion to k, so a straight line hits close; halving in
            # between keeps both ends moving.
            share = (self._limit - size[low]) / max(size[high] - size[low], 1e-9)
            middle = low + round((0.5 if halve else share) * (high - low))
            middle = min(max(middle, low + 1), high - 1)
            size[middle] = self._measure(kept(middle))
            low, high = (middle, high) if size[middle] <= self._limit else (low, middle)
            halve = not halve
        return low

    def _room(self, kept: Callable[[int], NamedFactors], count: int, size: float) -> int:
        """How many more there could be than the ``count`` there are, if they cost what the last
        tenth of them does."""
        fewer = math.floor(0.9 * count)
        each = (size - self._measure(kept(fewer))) / max(count - fewer, 1)
        # Not too many at once: what lies further off may cost more.
        return math.floor(min((self._limit - size) / each, 0.1 * count)) if each > 0 else 0

    def trimmed(self, model: CompressedModel) -> CompressedModel:
        """The model, without its smallest entries as long as its file is above ``max_bytes``.

        The search for k measures the worst case, so hardly anything is ever left to trim: a file's
        size may differ by some bytes once entries have become zero in training.
        """
        while self.target.max_bytes and len(artifact.encode(model)) > self.target.max_bytes:
            count = sum(model.nonzeros())
            smaller = Structure("magnitude").supports(model.factors, count - max(1, count // 1000))
            factors = {
                name: Factors(f.view, *(t * m for t, m in zip(f.tensors, s.tensors, strict=True)))
                for (name, f), s in zip(model.factors.items(), smaller.values(), strict=True)
            }
            model = replace(model, factors=factors)
        return model

    @property
    def _limit(self) -> float:
        limit = self.target.max_bytes or self.target.nominal_ratio
        assert limit is not None
        return limit

    def _measure(self, factors: NamedFactors) -> float:
        """Bytes of the file, or the nominal ratio, at worst, with these supports."""
        model = replace(self.blank, factors=_worst_values(factors, self.blank.bits))
        if self.target.max_bytes is not None:
            return len(artifact.encode(stored(model, self.structure)))
        return model.nominal_ratio()


def stored(model: CompressedModel, structure: Structure) -> CompressedModel:
    """The model as its file holds it: without the channels that the structure dropped."""
    cut = structure.cut(model.factors, model.others)
    if cut is None:
        return model
    return replace(model, factors=cut.factors, others=cut.others, kept=cut.kept)


def _count(factors: NamedFactors) -> int:
    return sum(int(tensor.count_nonzero()) for f in factors.values() for tensor in f.tensors)


@torch.no_grad()
def _worst_values(factors: NamedFactors, bits: int) -> NamedFactors:
    """The same supports with as many distinct values as the bits allow."""
    size = 2 ** min(bits, 8)
    return {
        name: Factors(f.view, *(_counted(t, size) for t in f.tensors))
        for name, f in factors.items()
    }


def _counted(tensor: torch.Tensor, size: int) -> torch.Tensor:
    """Non-zeros numbered in turn from 1 to ``size``."""
    place = (tensor != 0).flatten().cumsum(0).view_as(tensor)
    return torch.where(tensor != 0, (place - 1) % size + 1, 0).float()


def _filled(factors: Factors) -> Factors:
    """All of a weight in the factor that the identity passes on."""
    tensors = [torch.ones_like(t) if t is factors.carried else t for t in factors.tensors]
    return Factors(factors.view, *tensors)


def _single(factors: NamedFactors) -> NamedFactors:
    """One non-zero, at the last place of the largest factor: the dearest place there is."""
    single = {
        name: Factors(f.view, *(torch.zeros_like(t) for t in f.tensors))
        for name, f in factors.items()
    }
    largest = max((t for f in single.values() for t in f.tensors), key=torch.Tensor.numel)
    largest.view(-1)[-1] = 1.0
    return single
