"""W = U V + C: splitting changes nothing, gradients flow, and effects are what W moves by."""

import pytest
import torch
from torch import nn

from atmc_core.factors import splitting
from atmc_core.factors.factors import Factors
from atmc_core.factors.views import MatrixView, compressible_weights, dense_weights

MODULES = {
    "wide linear": nn.Linear(24, 10),
    "tall linear": nn.Linear(6, 30),
    "conv": nn.Conv2d(4, 8, 3),
    "tall conv": nn.Conv2d(2, 40, 3),
    "grouped conv": nn.Conv2d(8, 12, 3, groups=4),
    "depthwise conv": nn.Conv2d(16, 16, 3, groups=16),
    "pointwise conv": nn.Conv2d(16, 32, 1),
}


def _split(module: nn.Module, rank_fraction: float) -> Factors:
    (factors,) = splitting.interpolative(dense_weights(module), rank_fraction).values()
    return factors


@pytest.mark.parametrize("name", MODULES)
def test_splitting_leaves_the_weight_as_it_was(name: str) -> None:
    module = MODULES[name]
    factors = _split(module, 0.25)
    whole = factors.whole()
    assert [tuple(t.shape) for t in whole.tensors] == list(factors.view.factor_shapes)
    torch.testing.assert_close(whole.compose(), factors.compose())
    for held, tensor in zip(whole.tensors, factors.held(*whole.tensors), strict=True):
        assert int(held.count_nonzero()) == int(tensor.count_nonzero())
    for ours, tensor in zip(factors.tensors, factors.held(*whole.tensors), strict=True):
        assert torch.equal(ours, tensor)
    torch.testing.assert_close(factors.compose(), module.weight.detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["wide linear", "tall linear", "conv", "grouped conv"])
def test_splitting_gives_each_factor_work_and_stores_no_entry_twice(name: str) -> None:
    module = MODULES[name]
    factors = _split(module, 0.25)
    whole = factors.whole()
    carried, square = (whole.v, whole.u) if whole.view.wide else (whole.u, whole.v)
    assert square.count_nonzero() > 0
    assert whole.c.count_nonzero() > 0
    assert not ((carried != 0) & (whole.c != 0)).any()


@pytest.mark.parametrize("name", MODULES)
def test_effects_are_how_far_the_weight_moves(name: str) -> None:
    module = MODULES[name]
    factors = _split(module, 0.5)
    before = factors.compose()
    for tensor, effect in zip(
        factors.tensors, (*factors.effects(), torch.ones(1, 1, 1)), strict=True
    ):
        place = tuple(size // 2 for size in tensor.shape)
        kept = tensor[place].item()
        tensor[place] += 1
        moved = (factors.compose() - before).norm().item()
        tensor[place] = kept
        assert moved == pytest.approx(effect.expand_as(tensor)[place].item(), rel=1e-3)


@pytest.mark.parametrize("held", ["whole", "in part"])
@pytest.mark.parametrize(
    "module", [nn.Conv2d(4, 8, 3), nn.Conv2d(4, 8, 1, groups=2), nn.Linear(4, 9)]
)
def test_gradients_are_those_of_w_through_the_chain_rule(module: nn.Module, held: str) -> None:
    factors = _split(module, 0.5)
    wide = factors.view.wide
    (factors.v[:, -1] if wide else factors.u[..., -1]).zero_()  # what holds nothing is C's
    whole = factors.whole()
    gradient = torch.randn(factors.view.shape)
    leaves = [tensor.clone().requires_grad_() for tensor in whole.tensors]
    u, v, c = leaves
    identity = torch.eye((u if wide else v).shape[-1])
    product = (u + identity) @ v if wide else u @ (v + identity)
    weight = factors.view.to_weight(product + c)
    torch.testing.assert_close(weight.detach(), factors.compose())
    in_u, in_v, in_c = torch.autograd.grad(weight, leaves, gradient)
    holds = (whole.carried != 0).any(-1 if wide else -2, keepdim=True)
    in_u, in_v = (in_u, in_v * holds) if wide else (in_u * holds, in_v)
    in_c = in_c * ~holds
    own = whole if held == "whole" else factors
    found = [torch.full_like(tensor, torch.nan) for tensor in own.tensors]
    own.write_gradients(gradient, found)
    for ours, expected in zip(found, own.held(in_u, in_v, in_c), strict=True):
        torch.testing.assert_close(ours, expected)


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


def test_plain_factors_are_the_weight_itself() -> None:
    network = nn.Sequential(nn.Linear(6, 30), nn.Conv2d(4, 8, 3))
    factors = splitting.plain(dense_weights(network))
    for name, (weight, view) in dense_weights(network).items():
        assert torch.equal(factors[name].compose(), weight.detach())
        assert [int(t.count_nonzero()) > 0 for t in factors[name].tensors] == [
            not view.wide,
            view.wide,
            False,
        ]


def test_what_plain_factors_do_not_use_takes_no_memory() -> None:
    network = nn.Sequential(nn.Linear(6, 30), nn.Conv2d(4, 8, 3))
    weights = dense_weights(network)
    for name, factors in splitting.plain(weights).items():
        assert [tuple(t.shape) for t in factors.tensors] == list(factors.view.factor_shapes)
        stored = sum(t.untyped_storage().nbytes() for t in {factors.u, factors.v, factors.c})
        assert stored == 4 * (weights[name][0].numel() + 2)


@pytest.mark.parametrize("kind", ["plain", "in part", "whole"])
def test_factors_go_on_from_their_state_and_keep_nothing_else_of_it(kind: str) -> None:
    module = nn.Conv2d(4, 8, 3)
    weights = dense_weights(module)
    (factors,) = (
        splitting.plain(weights) if kind == "plain" else splitting.interpolative(weights, 0.25)
    ).values()
    if kind == "whole":
        factors = factors.whole()
    state, before = factors.state(), factors.compose().clone()
    assert sum(t.numel() for t in state["used"]) == sum(
        factors.tensors[role].numel() for role in factors.used
    )
    for role in factors.used:
        factors.tensors[role].zero_()
    assert not factors.compose().any()
    made = Factors.from_state(factors.view, state, torch.device("cpu"))
    factors.restore(state)
    for own in (made, factors):
        assert torch.equal(own.compose(), before)
        assert (own.plain, own.used) == (kind == "plain", factors.used)
        assert (own.basis is None) == (kind != "in part")


def test_low_rank_factors_are_the_best_of_their_rank_and_fit_the_budget() -> None:
    network = nn.Sequential(nn.Linear(20, 12), nn.Linear(5, 16))
    weights = dense_weights(network)
    k = 3 * (20 + 12) + 2 * (5 + 16)
    factors = splitting.low_rank(weights, k)
    nonzeros = sum(int(t.count_nonzero()) for f in factors.values() for t in f.tensors)
    assert 0 < nonzeros <= k
    for name, (weight, _) in weights.items():
        product = factors[name].compose()
        rank = int(torch.linalg.matrix_rank(product, rtol=1e-4))
        left, values, right = torch.linalg.svd(weight.detach(), full_matrices=False)
        values[rank:] = 0
        torch.testing.assert_close(product, left @ torch.diag(values) @ right, atol=1e-5, rtol=1e-4)


def test_low_rank_with_room_for_all_is_exact() -> None:
    weights = dense_weights(nn.Conv2d(8, 12, 3, groups=4))
    ((weight, _),) = weights.values()
    (factors,) = splitting.low_rank(weights, 10**6).values()
    torch.testing.assert_close(factors.compose(), weight.detach(), atol=1e-5, rtol=1e-4)


def test_low_rank_leaves_every_layer_something_however_small_its_singular_values() -> None:
    network = nn.Sequential(nn.Linear(20, 12), nn.Conv2d(4, 8, 3, groups=2), nn.Linear(30, 40))
    with torch.no_grad():
        network[0].weight.mul_(1e-3)
    weights = dense_weights(network)
    least = splitting.rank_one({name: view for name, (_, view) in weights.items()})
    k = sum(int(t.count_nonzero()) for f in least.values() for t in f.tensors)
    assert k == (20 + 12) + (4 + 18) + (30 + 40)
    for budget, ranks in ((k, [1, 1, 1]), (k - 1, [1, 1, 0])):
        factors = splitting.low_rank(weights, budget)
        assert [int((f.compose().flatten(1) != 0).any()) for f in factors.values()] == ranks


def test_low_rank_keeps_the_largest_shares_of_all_layers() -> None:
    """Scaled as a whole a layer keeps its rank, and none that is kept is below one that is not."""
    network = nn.Sequential(nn.Linear(16, 16, bias=False), nn.Linear(16, 16, bias=False))
    ranks = []
    for scale in (1.0, 1e-3):
        with torch.no_grad():
            network[0].weight.mul_(scale)
        weights = dense_weights(network)
        factors = splitting.low_rank(weights, 9 * 32)
        kept, cut = [], []
        ranks.append([])
        for name, (weight, _) in weights.items():
            rank = int(torch.linalg.matrix_rank(factors[name].compose(), rtol=1e-4))
            values = torch.linalg.svdvals(weight.detach())
            shares = values / values[0]
            kept.append(float(shares[rank - 1]))
            cut.append(float(shares[rank]))
            ranks[-1].append(rank)
        assert min(kept) > max(cut)
    assert ranks[0] == ranks[1]
    assert sum(ranks[0]) == 9
