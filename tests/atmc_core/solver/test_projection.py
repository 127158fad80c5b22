"""The projections are feasible, idempotent and nearest, checked by brute force on small inputs."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from atmc_core.solver.projection import (
    codebook,
    mark_balanced,
    mark_largest,
    padded,
    quantize,
    sparsity,
)

# Multiples of 1/8 are exact in float32, and equal values are common.
_values = st.integers(-40, 40).map(lambda i: i / 8)


def _vectors(max_size: int) -> st.SearchStrategy[Tensor]:
    arrays = hnp.arrays(np.float32, st.integers(1, max_size), elements=_values)
    return arrays.map(torch.from_numpy)


def _error(a: Tensor, b: Tensor) -> float:
    return float((a - b).double().square().sum())


class TestMarkLargest:
    @given(st.lists(_vectors(5), min_size=1, max_size=3), st.integers(0, 16))
    def test_keeps_exactly_k_and_none_smaller_than_a_dropped_one(
        self, tensors: list[Tensor], k: int
    ) -> None:
        scores = [tensor.abs() for tensor in tensors]
        flat = torch.cat(scores)
        mask = mark_largest(flat.clone(), k).bool()
        assert int(mask.sum()) == min(k, len(flat))
        if 0 < k < len(flat):
            assert flat[mask].min() >= flat[~mask].max()

    @given(_vectors(8), st.integers(1, 7))
    def test_is_the_nearest_point_with_k_nonzeros(self, tensor: Tensor, k: int) -> None:
        mask = mark_largest(tensor.abs(), k)
        supports = itertools.combinations(range(len(tensor)), min(k, len(tensor)))
        best = min(float(tensor.square().sum() - tensor[list(s)].square().sum()) for s in supports)
        assert _error(tensor, tensor * mask) == pytest.approx(best, abs=1e-6)

    def test_is_idempotent_and_breaks_ties_by_position(self) -> None:
        tensor = torch.tensor([1.0, -1.0, 1.0, 2.0])
        mask = mark_largest(tensor.abs(), 2)
        assert mask.tolist() == [True, False, False, True]
        again = mark_largest((tensor * mask).abs(), 2)
        assert again.tolist() == mask.tolist()

    @given(_vectors(40), st.integers(1, 39))
    def test_what_a_gpu_does_marks_as_many_and_as_large_ones(self, tensor: Tensor, k: int) -> None:
        k, scores = min(k, len(tensor)), tensor.abs()
        own = scores[sparsity.mark_by_topk(scores.clone(), k).bool()]
        assert own.sort().values.equal(scores[mark_largest(scores.clone(), k).bool()].sort().values)

    def test_refuses_a_negative_budget(self) -> None:
        with pytest.raises(ValueError, match="k is -1"):
            mark_largest(torch.ones(2), -1)

    def test_is_exact_where_a_sample_of_the_scores_misleads(self) -> None:
        scores = torch.zeros(61 * 1000)
        scores[1::61] = 5
        scores[::61] = 6
        for k in (10, 1000, 1500, 2500):
            mask = mark_largest(scores.clone(), k).bool()
            assert int(mask.sum()) == k
            assert scores[mask].min() >= scores[~mask].max()


class TestMarkBalanced:
    @given(st.lists(_vectors(4), min_size=1, max_size=3), st.integers(0, 12))
    def test_keeps_k_and_the_largest_product_of_the_layers_squares(
        self, layers: list[Tensor], k: int
    ) -> None:
        kept = torch.split(_balanced(layers, k), [len(layer) for layer in layers])
        nonzero = [layer[layer != 0] for layer in layers if (layer != 0).any()]
        count = sum(len(layer) for layer in nonzero)
        assert sum(int(mask.sum()) for mask in kept) == min(k, count)
        assert not any(
            (mask.bool() & (layer == 0)).any() for layer, mask in zip(layers, kept, strict=True)
        )
        if k >= len(nonzero):
            found = [
                float(layer[mask.bool()].square().sum())
                for layer, mask in zip(layers, kept, strict=True)
            ]
            product = math.prod(squares for squares in found if squares)
            assert product == pytest.approx(_best_product(nonzero, min(k, count)), rel=1e-5)

    @given(st.lists(_vectors(6), min_size=1, max_size=3), st.integers(0, 18))
    def test_is_idempotent_and_does_not_see_units(self, layers: list[Tensor], k: int) -> None:
        mask = _balanced(layers, k)
        sizes = [len(layer) for layer in layers]
        pieces = torch.split(mask, sizes)
        again = _balanced([layer * own for layer, own in zip(layers, pieces, strict=True)], k)
        assert again.tolist() == mask.tolist()
        scaled = [layer * 8.0**place for place, layer in enumerate(layers)]
        assert _balanced(scaled, k).tolist() == mask.tolist()

    def test_leaves_each_layer_one_where_magnitude_would_leave_it_none(self) -> None:
        layers = [torch.rand(100) + 1, torch.rand(10) / 100]
        mask = _balanced(layers, 20)
        assert mask[:100].sum() + mask[100:].sum() == 20
        assert mask[100:].any()
        assert not mark_largest(torch.cat(layers), 20)[100:].any()

    def test_of_equal_ones_the_first_and_none_of_what_there_is_no_room_for(self) -> None:
        assert _balanced([torch.ones(3), torch.ones(3)], 1).tolist() == [1, 0, 0, 0, 0, 0]
        assert _balanced([torch.ones(3), torch.ones(3)], 3).tolist() == [1, 1, 0, 1, 0, 0]

    def test_refuses_a_negative_budget(self) -> None:
        with pytest.raises(ValueError, match="k is -1"):
            mark_balanced(torch.ones(2), [2], -1)

    @given(st.lists(_vectors(6), min_size=1, max_size=3), st.integers(1, 18))
    def test_what_a_gpu_does_marks_as_many_and_as_large_ones(
        self, layers: list[Tensor], k: int
    ) -> None:
        flat, sizes = torch.cat(layers).abs(), [len(layer) for layer in layers]
        marks = torch.split(sparsity.balance_by_topk(flat.clone(), sizes, k), sizes)
        others = torch.split(_balanced(layers, k), sizes)
        for layer, own, other in zip(torch.split(flat, sizes), marks, others, strict=True):
            assert layer[own.bool()].sort().values.equal(layer[other.bool()].sort().values)

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    def test_a_gpu_marks_the_same(self) -> None:
        scores, sizes = torch.randperm(5000).float(), [20, 4000, 980]
        for k in (1, 100, 3000):
            mask = mark_balanced(scores.cuda(), sizes, k).cpu()
            assert mask.equal(mark_balanced(scores.clone(), sizes, k))


def _balanced(layers: list[Tensor], k: int) -> Tensor:
    return mark_balanced(torch.cat(layers).abs(), [len(layer) for layer in layers], k)


def _best_product(layers: list[Tensor], k: int) -> float:
    """Of the layers' kept squares, by trying all ways to share out k."""
    sums = [[float(s) for s in (-layer.abs()).sort().values.square().cumsum(0)] for layer in layers]
    shares = itertools.product(*(range(1, len(layer) + 1) for layer in layers))
    return max(
        math.prod(own[n - 1] for own, n in zip(sums, share, strict=True))
        for share in shares
        if sum(share) == k
    )


class TestQuantize:
    @settings(max_examples=200)
    @given(_vectors(8), st.integers(1, 2))
    def test_is_the_nearest_point_with_few_distinct_nonzeros(
        self, tensor: Tensor, bits: int
    ) -> None:
        found = quantize(tensor, bits)
        assert _error(tensor, found.values) == pytest.approx(
            _brute_force_error(tensor, 2**bits), abs=1e-5
        )

    @settings(max_examples=50)
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


def _requantized(
    tensors: list[Tensor], codebooks: list[Tensor], bits: int, *, skip_zeros: bool
) -> tuple[list[Tensor], Tensor]:
    """The points of several tensors, and their codebooks."""
    sizes = [len(tensor) for tensor in tensors]
    flat, ends = torch.cat(tensors), torch.tensor(sizes).cumsum(0)
    out, books = torch.full_like(flat, torch.nan), torch.stack([padded(c, bits) for c in codebooks])
    renewed = codebook.requantized(flat, ends, books, out, skip_zeros=skip_zeros)
    return list(out.split(sizes)), renewed


@pytest.mark.parametrize("skip_zeros", [True, False])
class TestRequantize:
    @settings(max_examples=100)
    @given(
        pairs=st.lists(st.tuples(_vectors(20), _vectors(20)), min_size=1, max_size=4),
        bits=st.integers(1, 4),
    )
    def test_is_feasible_keeps_zeros_and_takes_the_nearest_value(
        self, skip_zeros: bool, pairs: list[tuple[Tensor, Tensor]], bits: int
    ) -> None:
        tensors = [tensor for _, tensor in pairs]
        before = [quantize(tensor, bits).codebook for tensor, _ in pairs]
        points, codebooks = _requantized(tensors, before, bits, skip_zeros=skip_zeros)
        for tensor, point, book in zip(tensors, points, codebooks, strict=True):
            assert len(torch.unique(point[point != 0])) <= 2**bits
            assert (point[tensor == 0] == 0).all()
            assert (book.diff() >= 0).all()
            allowed = torch.cat([book, torch.zeros(1)])
            nearest = (tensor.unsqueeze(1) - allowed).abs().min(1).values
            kept = tensor != 0
            torch.testing.assert_close((tensor - point).abs()[kept], nearest[kept])

    def test_leaves_what_fits_as_it_is(self, skip_zeros: bool) -> None:
        found = [quantize(torch.randn(1000), 3) for _ in range(3)]
        points, _ = _requantized(
            [f.values for f in found], [f.codebook for f in found], 3, skip_zeros=skip_zeros
        )
        for point, own in zip(points, found, strict=True):
            torch.testing.assert_close(point, own.values)

    def test_follows_tensors_that_have_moved_a_little(self, skip_zeros: bool) -> None:
        tensors = [torch.randn(20_000), 1e-4 * torch.randn(5_000)]
        books = [quantize(tensor, 4).codebook for tensor in tensors]
        moved = [1.02 * t + 0.01 * t.std() * torch.randn(len(t)) for t in tensors]
        points, _ = _requantized(moved, books, 4, skip_zeros=skip_zeros)
        for tensor, point in zip(moved, points, strict=True):
            best = _error(tensor, quantize(tensor, 4).values)
            assert _error(tensor, point) <= 1.05 * best

    def test_takes_more_entries_than_it_looks_at_together(
        self, skip_zeros: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tensors = [torch.randn(300), torch.randn(500)]
        books = [quantize(tensor, 3).codebook for tensor in tensors]
        whole, _ = _requantized(tensors, books, 3, skip_zeros=skip_zeros)
        monkeypatch.setattr(codebook, "_PART", 128)
        parts, _ = _requantized(tensors, books, 3, skip_zeros=skip_zeros)
        for one, other in zip(whole, parts, strict=True):
            torch.testing.assert_close(one, other)


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
