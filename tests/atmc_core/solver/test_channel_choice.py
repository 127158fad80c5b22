"""The channel projection is feasible, idempotent, and the best of all possible choices."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from atmc_core.factors.factors import NamedFactors
from atmc_core.factors.splitting import interpolative, plain
from atmc_core.factors.views import dense_weights
from atmc_core.solver.projection.classes import EXACT_LIMIT
from atmc_core.solver.support import Channels


class _Residual(nn.Module):
    """A stream that one branch adds to."""

    def __init__(self, stream: int, inner: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, stream, 3, padding=1)
        self.into = nn.Conv2d(stream, inner, 3, padding=1)
        self.back = nn.Conv2d(inner, stream, 3, padding=1)
        self.norm = nn.BatchNorm2d(stream)
        self.head = nn.Linear(4 * stream, 3)

    def forward(self, images: Tensor) -> Tensor:
        stream = F.relu(self.stem(images))
        stream = F.relu(stream + self.norm(self.back(F.relu(self.into(stream)))))
        return self.head(torch.flatten(stream, 1))  # type: ignore[no-any-return]


def _chain(*widths: int) -> nn.Module:
    a, b, c = widths
    first, second = nn.Conv2d(1, a, 3), nn.Conv2d(a, b, 3)
    return nn.Sequential(
        *(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten()),
        *(nn.Linear(4 * b, c), nn.ReLU(), nn.Linear(c, 3)),
    )


def _separable(*widths: int) -> nn.Module:
    a, b = widths
    depthwise, pointwise = nn.Conv2d(a, a, 3, groups=a), nn.Conv2d(a, b, 1)
    return nn.Sequential(
        *(nn.Conv2d(1, a, 3), depthwise, nn.ReLU(), pointwise, nn.Flatten(), nn.Linear(b, 3))
    )


#: Networks, with how many widths each takes.
KINDS = [(_chain, 3), (_Residual, 2), (_separable, 2)]


def _network(seed: int, classes: int) -> nn.Module:
    """A network of so many classes of channels, of quite different sizes of weights."""
    generator = torch.Generator().manual_seed(seed)

    def spread(count: int) -> Tensor:
        return torch.randn(count, generator=generator).exp()

    kind, count = KINDS[seed % len(KINDS)]
    parts = torch.randint(count, (classes - count,), generator=generator)
    network = kind(*(1 + torch.bincount(parts, minlength=count)).tolist())
    with torch.no_grad():
        for weight, _ in dense_weights(network).values():
            weight.copy_(torch.randn(weight.shape, generator=generator))
            weight.mul_(spread(len(weight)).view(-1, *[1] * (weight.ndim - 1)))
            weight.mul_(spread(weight.shape[1]).view(1, -1, *[1] * (weight.ndim - 2)))
    return network


def _measured(structure: Channels, choices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Worth, weights and whether each layer has a channel, of choices ``[N, count]``."""
    worth, weights = torch.zeros(2, len(choices), dtype=torch.double)
    whole = torch.ones(len(choices), dtype=torch.bool)
    for reader in structure.graph.readers:
        squares = reader.layer.weight.detach().double().square()
        squares = squares.reshape(*squares.shape[:2], -1) / squares.mean()
        rows = choices[:, reader.outputs].double()
        columns = torch.ones(len(choices), squares.shape[1], dtype=torch.double)
        if not reader.depthwise:
            known = (reader.inputs >= 0).double()
            columns = choices[:, reader.inputs].double() * known + 1 - known
        worth += torch.einsum("nr,rca,nc->n", rows, squares, columns)
        weights += rows.sum(1) * columns.sum(1) * squares.shape[2]
        whole &= rows.any(1)
    return worth, weights, whole


def _best_worth(structure: Channels, k: int) -> float:
    """By trying all choices."""
    pinned = structure.graph.pinned
    free = (~pinned).nonzero()[:, 0]
    choices = pinned.repeat(2 ** len(free), 1)
    choices[:, free] = (torch.arange(2 ** len(free))[:, None] >> torch.arange(len(free))) & 1 == 1
    worth, weights, whole = _measured(structure, choices)
    return float(worth[whole & (weights <= k)].max())


def _chosen(network: nn.Module, share: float) -> tuple[Channels, float, float]:
    """What is kept of a share of the weights: the structure, its worth and the best there is."""
    structure = Channels(network)
    least = structure.least()
    k = least + round(share * (sum(w.numel() for w, _ in dense_weights(network).values()) - least))
    structure.shrink(plain(dense_weights(network)), k)
    worth, weights, whole = _measured(structure, structure.alive[None])
    assert weights <= k
    assert whole
    assert structure.alive[structure.graph.pinned].all()
    return structure, float(worth), _best_worth(structure, k)


_SEEDS, _SHARES = st.integers(0, 10**6), st.floats(0, 1)


@settings(max_examples=60)
@given(_SEEDS, st.integers(3, EXACT_LIMIT), _SHARES)
def test_of_a_dozen_channels_it_keeps_the_best_choice(
    seed: int, classes: int, share: float
) -> None:
    _, worth, best = _chosen(_network(seed, classes), share)
    assert worth == pytest.approx(best, rel=1e-9)


def test_of_more_it_keeps_most_of_what_the_best_choice_would() -> None:
    shares = torch.rand(24, generator=torch.Generator().manual_seed(0)).tolist()
    found = [
        _chosen(_network(seed, EXACT_LIMIT + 1 + seed % 4), s) for seed, s in enumerate(shares)
    ]
    reached = torch.tensor([worth / best for _, worth, best in found])
    assert reached.min() >= 0.6
    assert reached.mean() >= 0.95


def _kept(factors: NamedFactors) -> list[Tensor]:
    return [tensor.clone() for own in factors.values() for tensor in own.whole().tensors]


@settings(max_examples=30)
@given(_SEEDS, st.integers(6, 40), _SHARES, st.sampled_from(["plain", "factorised"]))
def test_it_is_feasible_and_idempotent_and_what_has_gone_stays_away(
    seed: int, classes: int, share: float, kind: str
) -> None:
    network = _network(seed, classes)
    weights = dense_weights(network)
    factors = plain(weights) if kind == "plain" else interpolative(weights, 0.25)
    structure = Channels(network)
    dense, least = sum(weight.numel() for weight, _ in weights.values()), structure.least()
    before = structure.alive
    for part in (1.0, (1 + share) / 2, share):
        k = least + round(part * (dense - least))
        supports = structure.supports(factors, k)
        structure.shrink(factors, k)
        once, alive = _kept(factors), structure.alive
        assert sum(int(tensor.count_nonzero()) for tensor in once) <= k
        assert all(
            torch.equal(tensor != 0, mark != 0)
            for tensor, mark in zip(once, _kept(supports), strict=True)
        )
        assert not (alive & ~before).any()
        structure.shrink(factors, k)
        assert torch.equal(structure.alive, alive)
        assert all(torch.equal(a, b) for a, b in zip(once, _kept(factors), strict=True))
        before = alive


@settings(max_examples=30)
@given(_SEEDS, st.integers(3, EXACT_LIMIT), _SHARES, _SHARES)
def test_a_larger_budget_keeps_no_less(seed: int, classes: int, one: float, other: float) -> None:
    network = _network(seed, classes)
    small, large = (_chosen(network, share)[1] for share in sorted((one, other)))
    assert large >= small * (1 - 1e-9)
