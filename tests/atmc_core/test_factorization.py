"""W = U V + C: seeding changes nothing, gradients flow, effects mean what they say."""

import pytest
import torch
from torch import nn

from atmc_core.factorization import MatrixView, compressible_weights, seed_factors

MODULES = {
    "wide linear": nn.Linear(24, 10),
    "tall linear": nn.Linear(6, 30),
    "conv": nn.Conv2d(4, 8, 3),
    "tall conv": nn.Conv2d(2, 40, 3),
    "grouped conv": nn.Conv2d(8, 12, 3, groups=4),
    "depthwise conv": nn.Conv2d(16, 16, 3, groups=16),
    "pointwise conv": nn.Conv2d(16, 32, 1),
}


@pytest.mark.parametrize("name", MODULES)
def test_seeding_leaves_the_weight_as_it_was(name: str) -> None:
    module = MODULES[name]
    (view,) = compressible_weights(module).values()
    factors = seed_factors(module.weight, view, rank_fraction=0.25)
    assert [tuple(t.shape) for t in factors.tensors] == list(view.factor_shapes)
    torch.testing.assert_close(factors.compose(), module.weight.detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["wide linear", "tall linear", "conv", "grouped conv"])
def test_seeding_gives_each_factor_work_and_stores_no_entry_twice(name: str) -> None:
    module = MODULES[name]
    (view,) = compressible_weights(module).values()
    factors = seed_factors(module.weight, view, rank_fraction=0.25)
    carried, square = (factors.v, factors.u) if view.wide else (factors.u, factors.v)
    assert square.count_nonzero() > 0
    assert factors.c.count_nonzero() > 0
    assert not ((carried != 0) & (factors.c != 0)).any()


@pytest.mark.parametrize("name", MODULES)
def test_effects_are_how_far_the_weight_moves(name: str) -> None:
    module = MODULES[name]
    (view,) = compressible_weights(module).values()
    factors = seed_factors(module.weight, view, rank_fraction=0.5)
    before = factors.compose()
    for tensor, effect in zip(factors.tensors, factors.effects(), strict=True):
        place = tuple(size // 2 for size in tensor.shape)
        kept = tensor[place].item()
        tensor[place] += 1
        moved = (factors.compose() - before).norm().item()
        tensor[place] = kept
        assert moved == pytest.approx(effect.expand_as(tensor)[place].item(), rel=1e-3)


def test_gradients_reach_all_three_factors() -> None:
    module = nn.Conv2d(4, 8, 3)
    (view,) = compressible_weights(module).values()
    factors = seed_factors(module.weight, view, rank_fraction=0.25)
    for tensor in factors.tensors:
        tensor.requires_grad_()
    (factors.compose() * torch.randn(8, 4, 3, 3)).sum().backward()
    assert all(
        tensor.grad is not None and tensor.grad.abs().sum() > 0 for tensor in factors.tensors
    )


def test_finds_every_conv_and_linear_and_a_shared_weight_once() -> None:
    tied = nn.Linear(4, 4)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Sequential(tied, tied))
    network.append(tied)
    assert list(compressible_weights(network)) == ["0.weight", "2.0.weight"]


def test_sees_a_grouped_conv_as_one_matrix_a_group() -> None:
    (view,) = compressible_weights(nn.Conv2d(8, 12, 3, groups=4)).values()
    assert view == MatrixView((12, 2, 3, 3), groups=4)
    assert (view.rows, view.columns) == (3, 18)
    assert view.factor_shapes == ((4, 3, 3), (4, 3, 18), (4, 3, 18))
