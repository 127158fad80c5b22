"""The projections: feasible, idempotent, and nearest (against brute force on small inputs)."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from atmc_core.projection import codebook, keep_largest, quantize, requantize, sparsity

# Multiples of 1/8 are exact in float32, and equal values are common.
_values = st.integers(-40, 40).map(lambda i: i / 8)


def _vectors(max_size: int) -> st.SearchStrategy[Tensor]:
    arrays = hnp.arrays(np.float32, st.integers(1, max_size), elements=_values)
    return arrays.map(torch.from_numpy)


def _error(a: Tensor, b: Tensor) -> float:
    return float((a - b).double().square().sum())


class TestKeepLargest:
    @given(st.lists(_vectors(5), min_size=1, max_size=3), st.integers(0, 16))
    def test_keeps_exactly_k_and_none_smaller_than_a_dropped_one(
        self, tensors: list[Tensor], k: int
    ) -> None:
        scores = [tensor.abs() for tensor in tensors]
        masks = list(keep_largest(scores, k))
        flat, mask = torch.cat(scores), torch.cat(masks)
        assert int(mask.sum()) == min(k, len(flat))
        if 0 < k < len(flat):
            assert flat[mask].min() >= flat[~mask].max()

    @given(_vectors(8), st.integers(1, 7))
    def test_is_the_nearest_point_with_k_nonzeros(self, tensor: Tensor, k: int) -> None:
        (mask,) = keep_largest([tensor.abs()], k)
        supports = itertools.combinations(range(len(tensor)), min(k, len(tensor)))
        best = min(float(tensor.square().sum() - tensor[list(s)].square().sum()) for s in supports)
        assert _error(tensor, tensor * mask) == pytest.approx(best, abs=1e-6)

    def test_is_idempotent_and_breaks_ties_by_position(self) -> None:
        tensor = torch.tensor([1.0, -1.0, 1.0, 2.0])
        (mask,) = keep_largest([tensor.abs()], 2)
        assert mask.tolist() == [True, False, False, True]
        (again,) = keep_largest([(tensor * mask).abs()], 2)
        assert again.tolist() == mask.tolist()

    @given(_vectors(40), st.integers(1, 39))
    def test_selection_by_topk_finds_what_partitioning_finds(self, tensor: Tensor, k: int) -> None:
        ordinals = [part.abs().view(torch.int32) for part in tensor.split(7)]
        k = min(k, len(tensor))
        for own, other in zip(
            sparsity.by_topk(ordinals, k), sparsity.by_partition(ordinals, k), strict=True
        ):
            assert int(own) == int(other)

    def test_refuses_a_negative_budget(self) -> None:
        with pytest.raises(ValueError, match="k is -1"):
            keep_largest([torch.ones(2)], -1)


class TestQuantize:
    @settings(max_examples=200, deadline=None)
    @given(_vectors(8), st.integers(1, 2))
    def test_is_the_nearest_point_with_few_distinct_nonzeros(
        self, tensor: Tensor, bits: int
    ) -> None:
        found = quantize(tensor, bits)
        assert _error(tensor, found.values) == pytest.approx(
            _brute_force_error(tensor, 2**bits), abs=1e-5
        )

    @settings(max_examples=50, deadline=None)
    @given(_vectors(40), st.integers(1, 4))
    def test_is_feasible_idempotent_and_keeps_zeros(self, tensor: Tensor, bits: int) -> None:
        found = quantize(tensor, bits)
        distinct = torch.unique(found.values[found.values != 0])
        assert len(distinct) <= 2**bits
        assert torch.isin(distinct, found.codebook).all()
        assert (found.values[tensor == 0] == 0).all()
        assert torch.equal(quantize(found.values, bits).values, found.values)

    @given(_vectors(12))
    def test_is_the_identity_with_enough_values(self, tensor: Tensor) -> None:
        assert torch.equal(quantize(tensor, 4).values, tensor)

    @pytest.mark.parametrize("bits", [2, 4, 8])
    def test_is_within_one_per_cent_of_exact_above_the_limit(
        self, bits: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bimodal = torch.randn(3000) * 0.3 + torch.where(torch.rand(3000) < 0.5, 1.0, -1.0)
        assert len(torch.unique(bimodal)) > codebook.EXACT_LIMIT
        approximate = _error(bimodal, quantize(bimodal, bits).values)
        monkeypatch.setattr(codebook, "EXACT_LIMIT", 10_000)
        exact = _error(bimodal, quantize(bimodal, bits).values)
        assert exact <= approximate <= 1.01 * exact

    def test_goes_on_from_a_codebook(self) -> None:
        tensor = torch.randn(20_000)
        first = quantize(tensor, 4)
        moved = tensor + 0.01 * torch.randn(20_000)
        warm = quantize(moved, 4, start=first.codebook)
        assert len(warm.codebook) <= 16
        assert _error(moved, warm.values) <= 1.01 * _error(moved, quantize(moved, 4).values)

    def test_all_zeros_and_shapes(self) -> None:
        found = quantize(torch.zeros(2, 3), 3)
        assert found.values.shape == (2, 3)
        assert len(found.codebook) == 0

    @pytest.mark.parametrize("bits", [0, 9, 16])
    def test_refuses_other_bits(self, bits: int) -> None:
        with pytest.raises(ValueError, match="bits is"):
            quantize(torch.ones(2), bits)

    def test_refuses_nan(self) -> None:
        with pytest.raises(ValueError, match="NaN"):
            quantize(torch.tensor([1.0, float("nan"), 2.0]), 2)


class TestRequantize:
    @settings(max_examples=100, deadline=None)
    @given(_vectors(40), _vectors(40), st.integers(1, 4))
    def test_is_feasible_keeps_zeros_and_takes_the_nearest_value(
        self, before: Tensor, tensor: Tensor, bits: int
    ) -> None:
        found = requantize(tensor, quantize(before, bits).codebook)
        assert len(torch.unique(found.values[found.values != 0])) <= 2**bits
        assert (found.values[tensor == 0] == 0).all()
        allowed = torch.cat([found.codebook, torch.zeros(1)])
        nearest = (tensor.unsqueeze(1) - allowed).abs().min(1).values
        kept = tensor != 0
        torch.testing.assert_close((tensor - found.values).abs()[kept], nearest[kept])

    def test_leaves_what_fits_as_it_is(self) -> None:
        found = quantize(torch.randn(1000), 3)
        again = requantize(found.values, found.codebook)
        torch.testing.assert_close(again.values, found.values)

    def test_follows_a_tensor_that_has_moved_a_little(self) -> None:
        tensor = torch.randn(20_000)
        first = quantize(tensor, 4)
        moved = 1.02 * tensor + 0.01 * torch.randn(20_000)
        best = _error(moved, quantize(moved, 4).values)
        assert _error(moved, requantize(moved, first.codebook).values) <= 1.05 * best

    @given(_vectors(40), st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=9))
    def test_sorted_values_give_the_cells_that_scattered_ones_give(
        self, tensor: Tensor, boundaries: list[float]
    ) -> None:
        edges = torch.tensor(boundaries).sort().values
        for own, other in zip(
            codebook._sorted(tensor)(edges), codebook._scattered(tensor)(edges), strict=True
        ):
            torch.testing.assert_close(own.double(), other)


def _brute_force_error(tensor: Tensor, size: int) -> float:
    """Least squared error over all ways to cut the sorted values into runs, one of them at zero."""
    values = np.sort(tensor[tensor != 0].double().numpy())
    n = len(values)
    best = float((values**2).sum())
    for runs in range(1, min(n, size + 1) + 1):
        for cuts in itertools.combinations(range(1, n), runs - 1):
            parts = np.split(values, list(cuts))
            spread = [float(((part - part.mean()) ** 2).sum()) for part in parts]
            at_zero = [float((part**2).sum()) for part in parts]
            if runs <= size:
                best = min(best, sum(spread))
            best = min(best, *(sum(spread) - s + z for s, z in zip(spread, at_zero, strict=True)))
    return best
