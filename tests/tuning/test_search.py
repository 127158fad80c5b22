"""A search finds the smallest file that holds, in few trials, whatever the curve."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from tuning.search import (
    BITS,
    DENSEST,
    SPARSEST,
    Found,
    Search,
    Tried,
    Try,
    density_at,
    level_of,
    next_trial,
)

LEVELS = range(level_of(SPARSEST) + 1)
# The interval's lower end lies so far below the accuracy.
HALF = 0.03


@dataclass(frozen=True)
class Network:
    """A network as a search sees it: accuracy and bytes by density and bits."""

    top: float
    middle: float
    steep: float
    lost_by_bits: float
    weights: int
    rest: int

    def low(self, density: float, bits: int) -> float:
        worth = density * (1 - 2 ** (-bits * self.lost_by_bits))
        return self.top / (1 + (self.middle / worth) ** self.steep) - HALF

    def bytes(self, density: float, bits: int) -> int:
        q = 1 - density
        entropy = -density * math.log2(density) - (q * math.log2(q) if q > 0 else 0)
        return round(self.rest + 20 * 2**bits + self.weights * (density * bits + entropy) / 8)

    def smallest(self, floor: float, bits: tuple[int, ...] = BITS) -> int | None:
        """The smallest file that holds, of a grid of every density of the lattice."""
        sizes = [
            self.bytes(density, b)
            for density in map(density_at, LEVELS)
            for b in bits
            if self.low(density, b) >= floor
        ]
        return min(sizes, default=None)


networks = st.builds(
    Network,
    top=st.floats(0.6, 0.95),
    middle=st.floats(math.log(0.004), math.log(0.08)).map(math.exp),
    steep=st.floats(0.7, 2.5),
    lost_by_bits=st.floats(0.35, 1.2),
    weights=st.sampled_from([40_000, 430_000, 2_000_000]),
    rest=st.integers(300, 4_000),
)
floors = st.floats(0.3, 0.9)


def run(
    network: Network, search: Search, noise: Callable[[], float] = lambda: 0.0
) -> tuple[Found, list[Tried]]:
    """Try until nothing more is to be tried."""
    tried: list[Tried] = []
    while isinstance(chosen := next_trial(search, tried), Try):
        density, bits = chosen.density or 0.1, chosen.bits
        assert chosen.reason
        assert all((t.density, t.bits) != (chosen.density, bits) for t in tried), "tried twice"
        low = network.low(density, bits) + noise()
        tried.append(Tried(len(tried), chosen.density, bits, low, network.bytes(density, bits)))
    # One is left for the confirmation.
    assert len(tried) <= search.limit - 1
    return chosen, tried


@given(networks, floors)
@settings(max_examples=150)
def test_with_given_bits_nine_trials_find_a_file_within_3_percent(
    network: Network, share: float
) -> None:
    floor = share * network.top
    smallest = network.smallest(floor, bits=(4,))
    found, tried = run(network, Search(floor, 9, bits=4))
    assert found.holds == (smallest is not None)
    if smallest is not None and found.best is not None:
        assert (tried[found.best].bytes or 0) <= 1.03 * smallest


@given(networks, floors)
@settings(max_examples=150)
def test_with_any_bits_sixteen_do_so_and_eight_come_near(network: Network, share: float) -> None:
    floor = share * network.top
    smallest = network.smallest(floor)
    for limit, within in ((16, 1.03), (8, 1.6)):
        found, tried = run(network, Search(floor, limit))
        assert found.holds == (smallest is not None)
        if smallest is not None and found.best is not None:
            assert tried[found.best].low is not None
            assert (tried[found.best].bytes or 0) <= within * smallest


@given(networks, floors, st.randoms(use_true_random=False), st.floats(0, 0.02))
@settings(max_examples=150)
def test_noise_costs_no_more_than_a_floor_that_is_higher_by_it(
    network: Network, share: float, random: object, noise: float
) -> None:
    floor = share * network.top
    draw = lambda: noise * (2 * random.random() - 1)  # type: ignore[attr-defined]  # noqa: E731
    found, tried = run(network, Search(floor, 20, bits=4), draw)
    surely = network.smallest(floor + noise, bits=(4,))
    if surely is None:
        return
    assert found.holds
    assert found.best is not None
    best = tried[found.best]
    assert best.low is not None
    assert best.low >= floor
    assert (best.bytes or 0) <= 1.03 * surely


@given(networks, st.floats(0.01, 0.5))
@settings(max_examples=50)
def test_a_floor_that_nothing_holds_ends_with_the_nearest(network: Network, above: float) -> None:
    floor = network.low(DENSEST, BITS[-1]) + above
    assume(floor < 1)
    found, tried = run(network, Search(floor, 8))
    assert not found.holds
    assert found.best == max(range(len(tried)), key=lambda index: tried[index].low or 0.0)
    assert (tried[-1].density, tried[-1].bits) == (DENSEST, BITS[-1])


@given(networks, floors)
@example(Network(0.9, 0.02, 1.0, 0.5, 40_000, 300), 0.5)
@settings(max_examples=50)
def test_where_the_size_is_fixed_the_fewest_bits_are_found(network: Network, share: float) -> None:
    floor = share * network.low(0.1, 8)
    found, tried = run(network, Search(floor, 8, size_is_fixed=True))
    holding = [bits for bits in BITS if network.low(0.1, bits) >= floor]
    assert found.holds
    assert found.best is not None
    assert tried[found.best].bits == min(holding)
    assert len(tried) <= 3


def test_trials_that_have_failed_do_not_hold_and_the_search_goes_on() -> None:
    failed = Tried(0, density_at(level_of(0.05)), 4, None, None)
    chosen = next_trial(Search(0.5, 8), [failed])
    assert isinstance(chosen, Try)
    assert (chosen.density or 0) > 0.05
    held = Tried(1, chosen.density, 4, 0.6, 1000)
    between = next_trial(Search(0.5, 8, bits=4), [failed, held])
    assert isinstance(between, Try)
    assert (failed.density or 0) < (between.density or 0) < (held.density or 0)


def test_the_next_trial_depends_on_the_trials_alone() -> None:
    network = Network(0.9, 0.02, 1.5, 0.8, 430_000, 1_000)
    _, tried = run(network, Search(0.5, 8))
    for count in range(len(tried)):
        first = next_trial(Search(0.5, 8), tried[:count])
        assert isinstance(first, Try)
        assert (first.density, first.bits) == (tried[count].density, tried[count].bits)
