"""The k found for a file size or a nominal ratio never exceeds the limit, and nearly reaches it."""

import dataclasses

import pytest
import torch

from atmc_core import artifact
from atmc_core.artifact import CompressedModel, float_state
from atmc_core.artifact.budget import Budget
from atmc_core.artifact.ordering import ordered
from atmc_core.errors import InvalidInput
from atmc_core.factors.factors import Factors, NamedFactors
from atmc_core.factors.splitting import interpolative, plain, rank_one
from atmc_core.factors.views import dense_weights
from atmc_core.networks.architectures import build
from atmc_core.networks.classifier import Normalization
from atmc_core.solver.projection import quantize
from atmc_core.solver.rounding import rounded, to_half
from atmc_core.solver.support import Structure
from atmc_spec import Target

supports = Structure().supports

BITS = [2, 8, 16, 32]


def _budget(target: Target, factors: NamedFactors, architecture: str = "digits_cnn") -> Budget:
    network = build(architecture, 10)
    blank = CompressedModel(
        architecture=architecture,
        num_classes=10,
        normalization=Normalization(),
        factors=factors,
        others=float_state(network, factors),
        bits=target.bits,
        k=38_160,
    )
    return Budget(target, blank, sum(f.c.numel() for f in factors.values()))


def _factors(kind: str, architecture: str = "digits_cnn") -> NamedFactors:
    weights = dense_weights(build(architecture, 10))
    return interpolative(weights, 0.25) if kind == "factorised" else plain(weights)


def _cut(budget: Budget, factors: NamedFactors, k: int) -> CompressedModel:
    """The artifact of the k largest entries, quantised, rounded and in order, as a job has it."""
    kept, small = {}, budget.target.small_tensor_bits
    for (name, own), mask in zip(factors.items(), supports(factors, k).values(), strict=True):
        parts = [t * m for t, m in zip(own.whole().tensors, mask.tensors, strict=True)]
        if budget.target.bits <= 8:
            parts = [quantize(part, budget.target.bits).values for part in parts]
            parts = [to_half(part) if small < 32 else part for part in parts]
        kept[name] = Factors(own.view, *(part.detach() for part in parts))
    others = {name: rounded(name, own, small) for name, own in budget.blank.others.items()}
    return ordered(dataclasses.replace(budget.blank, factors=kept, others=others, k=k))


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("kind", ["plain", "factorised"])
def test_a_file_is_as_large_as_it_may_be_and_no_larger(kind: str, bits: int) -> None:
    factors = _factors(kind)
    budget = _budget(Target(bits=bits, max_bytes=9_000), factors)
    budget.check()
    k = budget.largest(lambda k: supports(factors, k))
    # Values are taken to need more room than they do, most so where they are floats.
    least = 7_500 if bits == 16 else 8_100
    assert least < len(artifact.encode(_cut(budget, factors, k))) <= 9_000


@pytest.mark.parametrize("bits", BITS)
def test_a_nominal_ratio_is_met_from_below(bits: int) -> None:
    factors = _factors("plain")
    # Codebooks in float16 have equal values here and there, which then count once.
    budget = _budget(Target(bits=bits, nominal_ratio=0.04, small_tensor_bits=32), factors)
    k = budget.largest(lambda k: supports(factors, k))
    assert 0.039 < _cut(budget, factors, k).nominal_ratio() <= 0.04


def test_a_support_that_leaves_room_says_how_much() -> None:
    dense = _factors("plain")
    budget = _budget(Target(bits=8, max_bytes=9_000), dense)
    k = budget.largest(lambda k: supports(dense, k))
    sparse = _cut(budget, dense, round(0.95 * k)).factors
    assert budget.largest(lambda k: supports(sparse, k)) == pytest.approx(k, rel=0.04)
    few = _cut(budget, dense, k // 4).factors
    assert budget.largest(lambda k: supports(few, k)) <= 1.1 * (k // 4)


def test_all_weights_are_kept_where_they_fit() -> None:
    factors = _factors("plain")
    budget = _budget(Target(bits=4, max_bytes=10**6), factors)
    assert budget.largest(lambda k: supports(factors, k)) == budget.most == 38_160
    assert budget.holds_all()
    assert not _budget(Target(bits=4, max_bytes=10_000), factors).holds_all()


def test_a_file_that_cannot_be_is_refused_with_the_least_that_can() -> None:
    factors = _factors("plain")
    with pytest.raises(InvalidInput, match="ask for at least") as refused:
        _budget(Target(bits=4, max_bytes=100), factors).check()
    assert (refused.value.code, refused.value.param) == ("max_bytes_too_small", "target.max_bytes")
    least = int(refused.value.message.rsplit(" ", 1)[1])
    biases = 2 * (16 + 32 + 64 + 10)
    assert 0.9 * biases < least < biases + 200
    budget = _budget(Target(bits=4, max_bytes=least), factors)
    budget.check()
    k = budget.largest(lambda k: supports(factors, k))
    assert k >= 1
    assert len(artifact.encode(_cut(budget, factors, k))) <= least
    with pytest.raises(InvalidInput):
        _budget(Target(bits=4, max_bytes=least - 1), factors).check()


def test_a_model_above_the_limit_is_trimmed_by_its_smallest_entries() -> None:
    factors = _factors("plain")
    large = _cut(_budget(Target(bits=8, max_bytes=9_000), factors), factors, 4_000)
    # A little less than it takes: what has to go goes by a thousandth at a time.
    limit = len(artifact.encode(large)) - 50
    budget = _budget(Target(bits=8, max_bytes=limit), factors)
    trimmed = budget.trimmed(large)
    assert limit - 50 < len(artifact.encode(trimmed)) <= limit
    before, after = (
        torch.cat([f.v.flatten() for f in m.factors.values()]) for m in (large, trimmed)
    )
    dropped = before[(before != 0) & (after == 0)].abs()
    assert dropped.max() <= before[after != 0].abs().min() + 1e-6
    assert budget.trimmed(trimmed) is trimmed


@pytest.mark.parametrize("bits", BITS)
def test_a_refused_nominal_ratio_names_one_that_is_taken(bits: int) -> None:
    factors = _factors("plain")
    least = rank_one({name: own.view for name, own in factors.items()})
    with pytest.raises(InvalidInput, match="ask for at least") as refused:
        _budget(Target(bits=bits, nominal_ratio=0.001), factors).check(least)
    enough = float(refused.value.message.split()[-1])
    _budget(Target(bits=bits, nominal_ratio=enough), factors).check(least)
