"""The budget of non-zeros that a target means: a given k, or the largest k that fits a size."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import torch

from atmc_core import artifact
from atmc_core.artifact import CompressedModel
from atmc_core.artifact.ordering import ordered_others
from atmc_core.artifact.worst import Shares, code_shares, worst_others, worst_values
from atmc_core.errors import InvalidInput
from atmc_core.factors.factors import Factors, NamedFactors
from atmc_core.solver.support import Structure
from atmc_reader.positions import Weights
from atmc_spec.names import MAX_CODEBOOK_BITS

if TYPE_CHECKING:
    # Not imported at run time: whoever saves a file by hand has no spec, and perhaps no pydantic.
    from atmc_spec import Target

# The search for k ends when k is known, or the size is met, up to this share.
_TOLERANCE = 1e-3
# So many sizes are measured before the interval is halved each time.
_INTERPOLATED = 12
# The room that a further non-zero takes is estimated from the last non-zeros, this share of all.
# The estimate is used for at most as many further ones.
_MARGIN = 0.1
# The file is trimmed by one entry in this many at a time.
_TRIMMED_AT_ONCE = 1000
# A non-zero's value takes at least this share of its bits, if it is such as takes the most room.
_INCOMPRESSIBLE = 0.8
# Values that are no rarer may take more room by chance; this is on the safe side.
_SAFE = 1.002
# The first guess at k is refined so often.
_ROUNDS = 8


@dataclass(frozen=True)
class Budget:
    """Finds the k of a target for one network.

    The size of a file, and the nominal ratio, depend on where the non-zeros are. So for targets of
    these kinds k is searched among actual supports, and each support is measured with the values
    that take the most room.

    Attributes:
        target: the target of the job's spec.
        blank: the network as an artifact; the values of its factors do not matter.
        most: the number of dense conv and linear weights, which k never exceeds.
        structure: what is kept or dropped as a whole. If it is channels, their biases and norms
            are dropped from the file, too.
    """

    target: "Target"
    blank: CompressedModel
    most: int
    structure: Structure = field(default_factory=Structure)

    def check(self, least: NamedFactors | None = None) -> None:
        """Check that the target can be met at all.

        Args:
            least: factors with the fewest non-zeros that the method can leave; by default factors
                with a single non-zero.

        Raises:
            InvalidInput: ``k_out_of_range``, or ``max_bytes_too_small``; the message names the
                smallest value that is possible.
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
            enough = math.ceil(size * 1e6) / 1e6  # rounded up to six digits, so it is accepted
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
        """Whether the target allows all weights to stay."""
        given = self.target.given_k(self.most)
        if given is not None:
            return given == self.most
        dense = {name: _filled(factors) for name, factors in self.blank.factors.items()}
        return self._measure(dense) <= self._limit

    def largest(
        self,
        kept: Callable[[int], NamedFactors],
        values: Callable[[int], NamedFactors] | None = None,
    ) -> int:
        """The k that the target gives, or else the largest k whose ``kept(k)`` fits the target.

        If even all non-zeros that the factors have now fit, it is an estimate of how many would.

        Args:
            kept: a function from k to the factors that a budget of k non-zeros leaves.
            values: a function from k to factors with their present values, of which ``kept`` are
                the supports. They tell how often each code will come; if they are not given, all
                are taken to come as often, which takes the most room.
        """
        given = self.target.given_k(self.most)
        if given is not None:
            return given
        everything = kept(self.most)
        high, low = _count(everything), 1
        size: dict[int, float] = {}
        fitted: dict[int, Weights] = {}
        if high * self._least_each <= self._limit:
            size[high] = self._measure(everything)
            if size[high] <= self._limit:
                return min(self.most, high + self._room(kept, high, size[high]))
        size[low] = self._measure(kept(low))
        middle = self._first_guess(size[low], high)
        shares: Shares = {}
        kept = lru_cache(1)(kept)  # the first is measured after it has told the shares
        if values is not None and self.target.max_bytes and self.blank.bits <= MAX_CODEBOOK_BITS:
            shares = code_shares(kept(middle), values(middle), self.blank.bits)
        while high - low > max(1, _TOLERANCE * low):
            if not low < middle < high or len(size) > _INTERPOLATED:
                middle = (low + high) // 2
            size[middle] = self._measure(kept(middle), shares, fitted)
            low, high = (middle, high) if size[middle] <= self._limit else (low, middle)
            if size[low] >= (1 - _TOLERANCE) * self._limit:
                break
            middle = self._next_guess(size)
        return low

    @cached_property
    def _others(self) -> dict[str, torch.Tensor]:
        """Other tensors that take the most room, in the order in which the file will have them."""
        others = worst_others(self.blank.others, self.target.small_tensor_bits)
        return ordered_others(replace(self.blank, others=others))

    @property
    def _least_each(self) -> float:
        """What each non-zero adds to the size at least."""
        if self.target.max_bytes is None:
            return self.blank.bits / (32 * self.most)
        return _INCOMPRESSIBLE * self.blank.bits / 8

    def _first_guess(self, least: float, count: int) -> int:
        """The k to be measured first: what memoryless positions leave.

        It does not depend on earlier searches, of which a job that was interrupted knows nothing.
        """
        k = count / 2
        for _ in range(_ROUNDS):
            position = math.log2(math.e * self.most / max(k, 1)) if self.target.max_bytes else 0
            each = self._least_each * (1 + position / self.blank.bits)
            k = max((self._limit - least) / each, 1)
        return round(k)

    def _next_guess(self, size: dict[int, float]) -> int:
        """Where the line through the two sizes nearest to the limit meets it, or nearly so.

        The size is nearly linear in k.
        """
        first, second = sorted(size, key=lambda k: abs(size[k] - self._limit))[:2]
        slope = (size[second] - size[first]) / (second - first)
        aim = (1 - _TOLERANCE / 2) * self._limit
        return first + round((aim - size[first]) / slope) if slope > 0 else 0

    def _room(self, kept: Callable[[int], NamedFactors], count: int, size: float) -> int:
        """Estimate how many more non-zeros fit than the ``count`` that take ``size``.

        Each is assumed to take as much room as one of the last tenth does now.
        """
        fewer = math.floor((1 - _MARGIN) * count)
        each = (size - self._measure(kept(fewer))) / max(count - fewer, 1)
        # The estimate is not used further than that: other non-zeros may take more room.
        return math.floor(min((self._limit - size) / each, _MARGIN * count)) if each > 0 else 0

    def trimmed(self, model: CompressedModel) -> CompressedModel:
        """The model without its smallest entries, so that its file is at most ``max_bytes`` long.

        Usually there is nothing to trim, because the search for k measures the worst case. But once
        entries have become zero in training, the file may be some bytes longer.
        """
        while self.target.max_bytes and len(artifact.encode(model)) > self.target.max_bytes:
            count = sum(model.nonzeros())
            fewer = count - max(1, count // _TRIMMED_AT_ONCE)
            smaller = Structure("magnitude").supports(model.factors, fewer)
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

    def _measure(
        self,
        factors: NamedFactors,
        shares: Shares | None = None,
        fitted: dict[int, Weights] | None = None,
    ) -> float:
        """The largest size that the supports of these factors can mean.

        It is the file's size in bytes for a target of ``max_bytes``, else the nominal ratio.

        Args:
            factors: only where their non-zeros are matters.
            shares: how often each code comes; where it has none, all come as often.
            fitted: see ``artifact.encode``.
        """
        model = replace(
            self.blank,
            factors=worst_values(
                factors, self.blank.bits, self.target.small_tensor_bits, shares or {}
            ),
            others=self._others,
        )
        if self.target.max_bytes is not None:
            return math.ceil(_SAFE * len(artifact.encode(stored(model, self.structure), fitted)))
        return model.nominal_ratio()


def stored(model: CompressedModel, structure: Structure) -> CompressedModel:
    """The model as it is stored in a file: without the channels that the structure dropped."""
    cut = structure.cut(model.factors, model.others)
    if cut is None:
        return model
    return replace(model, factors=cut.factors, others=cut.others, kept=cut.kept)


def _count(factors: NamedFactors) -> int:
    return sum(int(tensor.count_nonzero()) for f in factors.values() for tensor in f.tensors)


def _filled(factors: Factors) -> Factors:
    """Factors with ones in the factor that is carried through the identity, which is all of W."""
    tensors = [torch.ones_like(t) if t is factors.carried else t for t in factors.tensors]
    return Factors(factors.view, *tensors)


def _single(factors: NamedFactors) -> NamedFactors:
    """Factors with one non-zero, at the end of the largest, where its position takes most room."""
    single = {
        name: Factors(f.view, *(torch.zeros_like(t) for t in f.tensors))
        for name, f in factors.items()
    }
    largest = max((t for f in single.values() for t in f.tensors), key=torch.Tensor.numel)
    largest.view(-1)[-1] = 1.0
    return single
