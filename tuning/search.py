"""Looking for the smallest file that holds a floor: which trial is next, given those so far.

Accuracy falls and the file shrinks with the density and with the bits, so where one trial failed a
sparser one of no more bits fails, too, and where one held a denser one holds. First the density is
bracketed and the bracket narrowed, by a parabola through its ends and a third trial where that is
quick, else by its middle. Then bits: the densest file of other bits that is smaller than the best
so far is tried; if that fails, all sparser ones of these bits do, so one trial rules them out. Then
the bracket of the best bits is narrowed to neighbours of the lattice.

Densities stand on a lattice of steps of `RATIO`, so that two searches ask for the same ones.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

RATIO = 1.025
"""Two neighbours of the lattice differ by this factor: by less than 3 %."""

BITS: tuple[int, ...] = (2, 3, 4, 5, 6, 8)
"""The bits that are tried."""

DENSEST, SPARSEST = 0.7, 0.002
"""The ends of the lattice. A denser file is no larger: it has less to say of positions."""

_LAST = math.floor(math.log(DENSEST / SPARSEST, RATIO))
# These four were chosen on a thousand synthetic curves: of the files that eight trials found, 71 %
# were within 3 % of the smallest there is, of those of twelve 97 %.
_FIRST_DENSITY, _FIRST_BITS = 0.05, 4
# How far the search goes where it knows one end only: by a factor of 2.7.
_STRIDE = 40
# Bits gain more than the last steps of the density: they are tried once the bracket is a factor of
# 1.3.
_NARROW = 11
# A file of other bits has to be smaller by this much to be worth a trial.
_GAIN = 0.985


@dataclass(frozen=True)
class Search:
    """What is looked for: the floor, with how many trials at most, and what is fixed.

    `limit` includes the one that confirms the answer.
    """

    floor: float
    limit: int
    size_is_fixed: bool = False
    bits: int | None = None


@dataclass(frozen=True)
class Tried:
    """A trial that has ended: what it asked for, the bytes of its file, and what held.

    `low` is the lower end of the interval of the accuracy. It and `bytes` are None of a trial that
    was stopped or has failed, which does not hold. `density` is None where the size is fixed.
    """

    index: int
    density: float | None
    bits: int
    low: float | None
    bytes: int | None

    def holds(self, floor: float) -> bool:
        """Tell whether its file is one, and holds the floor."""
        return self.bytes is not None and self.low is not None and self.low >= floor


@dataclass(frozen=True)
class Try:
    """Try this density (None: the size is fixed) and these bits, for this reason."""

    density: float | None
    bits: int
    reason: str


@dataclass(frozen=True)
class Found:
    """Nothing more is to be tried: the best trial, and whether it holds the floor."""

    best: int | None
    holds: bool


def density_at(level: int) -> float:
    """Return the density of a level of the lattice: the densest at level 0, sparser above."""
    return float(f"{DENSEST * RATIO**-level:.4g}")


def level_of(density: float) -> int:
    """Return the level that is nearest to the density."""
    return round(math.log(DENSEST / density, RATIO))


def next_trial(search: Search, tried: Sequence[Tried]) -> Try | Found:
    """Return what to try next; all of `tried` have ended, in the order in which they began."""
    state = _State(search, tried)
    if len(tried) >= search.limit - 1:
        return state.found()
    following = state.bits_alone() if search.size_is_fixed else state.anything()
    return following or state.found()


class _State:
    """What is known after some trials."""

    def __init__(self, search: Search, tried: Sequence[Tried]) -> None:
        self._search = search
        self._tried = tried
        self._held = [trial for trial in tried if trial.holds(search.floor)]
        self._failed = [trial for trial in tried if not trial.holds(search.floor)]

    def found(self) -> Found:
        """Return the smallest that holds; if none does, the one that came nearest."""
        if self._held:
            return Found(self._best().index, holds=True)
        whole = [t for t in self._tried if t.low is not None and t.bytes is not None]
        nearest = max(whole, key=lambda trial: trial.low or 0.0, default=None)
        return Found(nearest.index if nearest else None, holds=False)

    def _best(self) -> Tried:
        # Of files alike by a byte the sparser one, which is nearer to the end.
        return min(self._held, key=lambda trial: (trial.bytes, trial.density or 1.0, trial.bits))

    def bits_alone(self) -> Try | None:
        """Return the middle of the bits that may be the fewest that hold."""
        fails = max((trial.bits for trial in self._failed), default=0)
        holds = min((trial.bits for trial in self._held), default=BITS[-1] + 1)
        left = [bits for bits in BITS if fails < bits < holds]
        if not left or self._search.bits is not None:
            return None if self._tried else Try(None, self._search.bits or _FIRST_BITS, _BEGIN)
        bits = left[len(left) // 2]
        return Try(None, bits, f"the middle of the bits that may be the fewest: {_listed(left)}")

    def anything(self) -> Try | None:
        """Return the next density and bits, None once there is nothing to gain."""
        if not self._tried:
            bits = self._search.bits or _FIRST_BITS
            return self._at(level_of(_FIRST_DENSITY), bits, _BEGIN)
        if not self._held:
            return self._denser()
        best = self._best()
        holds, fails = _level(best), self._first_failing(best)
        if fails is None and holds < _LAST:
            level = min(holds + _STRIDE, _LAST)
            return self._at(level, best.bits, f"{_words(best)} held: much sparser")
        end = _LAST + 1 if fails is None else _level(fails)
        narrow = self._narrow(best, fails, end)
        if narrow is not None and end - holds > _NARROW:
            return narrow
        # Fewer bits may lose where still fewer win, but seldom: that is looked at last.
        return self._other_bits(best, 1) or narrow or self._other_bits(best, 2)

    def _denser(self) -> Try | None:
        """Return what is more likely to hold than all that failed so far."""
        densest = min(self._failed, key=lambda trial: (_level(trial), -trial.bits))
        level, bits = _level(densest), max(trial.bits for trial in self._failed)
        why = f"{_words(densest)} did not hold: "
        if level > 0:
            return self._at(max(level - _STRIDE, 0), bits, f"{why}much denser")
        if bits < BITS[-1] and self._search.bits is None:
            return self._at(0, BITS[-1], f"{why}the most bits")
        return None

    def _first_failing(self, best: Tried) -> Tried | None:
        """Return the densest that failed of those that are sparser than the best.

        One that failed with more bits would have failed with the best's, too.
        """
        sparser = [
            trial
            for trial in self._failed
            if _level(trial) > _level(best) and trial.bits >= best.bits
        ]
        return min(sparser, key=_level, default=None)

    def _narrow(self, best: Tried, fails: Tried | None, end: int) -> Try | None:
        """Return a density between the one that holds and the one that does not."""
        holds = _level(best)
        if end - holds <= 1:
            return None
        crossing = None if self._is_slow(best.bits) else self._crossing(best, fails)
        level = (holds + end) // 2 if crossing is None else math.floor(crossing)
        level = min(max(level, holds + 1), end - 1)
        between = f"between {_words(best)}, which held, and density {density_at(end):g}"
        return self._at(level, best.bits, f"{between}, which did not")

    def _crossing(self, best: Tried, fails: Tried | None) -> float | None:
        """Return the level at which accuracy is likely to be the floor; None if nothing tells."""
        holds, floor = _level(best), self._search.floor
        curve = self._curve(best.bits)
        if len(curve) == 1:
            # With other bits accuracy falls in the same way, but at another density.
            for bits in {trial.bits for trial in self._tried} - {best.bits}:
                other = self._curve(bits)
                there, at_floor = _where(other, curve[0][1]), _where(other, floor)
                if there is not None and at_floor is not None:
                    return holds + at_floor - there
        if fails is None or fails.low is None or best.low is None:
            return None
        # Through both a line, or with the nearest third a parabola: accuracy falls ever faster.
        end = _level(fails)
        denser = [point for point in curve if point[0] < holds]
        sparser = [point for point in curve if point[0] > end]
        third = denser[-1:] or sparser[:1]
        width, above, below = end - holds, best.low - floor, fails.low - floor
        slope, bend = (below - above) / width, 0.0
        for level, low in third:
            bend = ((low - best.low) / (level - holds) - slope) / (level - end)
        # It is the one root between them of bend x^2 + linear x + above.
        linear = slope - bend * width
        return holds + 2 * above / (math.sqrt(linear**2 - 4 * bend * above) - linear)

    def _curve(self, bits: int) -> list[tuple[int, float]]:
        """Return the levels that were tried with these bits, and what held at each."""
        own = (trial for trial in self._tried if trial.bits == bits)
        return sorted((_level(trial), trial.low) for trial in own if trial.low is not None)

    def _is_slow(self, bits: int) -> bool:
        """Tell whether the last two trials have not halved the bracket of these bits."""
        widths = []
        for count in range(1, len(self._tried) + 1):
            before = _State(self._search, self._tried[:count])
            held = [trial for trial in before._held if trial.bits == bits]
            if held and self._tried[count - 1].bits == bits:
                best = max(held, key=_level)
                fails = before._first_failing(best)
                widths.append((_level(fails) if fails else _LAST + 1) - _level(best))
        return len(widths) > 2 and widths[-1] > widths[-3] / 2

    def _other_bits(self, best: Tried, steps: int) -> Try | None:
        """Return the densest file of so much fewer or more bits that is smaller than the best."""
        if self._search.bits is not None:
            return None
        place = BITS.index(best.bits)
        for other in (place - steps, place + steps):
            if not 0 <= other < len(BITS):
                continue
            bits = BITS[other]
            level = self._level_below(best, bits)
            ruled_out = level is None or any(
                trial.bits >= bits and _level(trial) <= level for trial in self._failed
            )
            if level is not None and not ruled_out:
                why = f"with {bits} bits, the densest file smaller than that of {_words(best)}"
                return self._at(level, bits, why)
        return None

    def _level_below(self, best: Tried, bits: int) -> int | None:
        """Return the densest level at which a file of so many bits is likely to be smaller."""
        sizes = _Sizes([trial for trial in self._tried if trial.bytes])
        most = _GAIN * (best.bytes or 0)
        # With fewer bits it is smaller at the same density, whatever the files so far make of it.
        end = _level(best) if bits < best.bits else _LAST + 1
        # Those that held and were not smaller after all.
        begin = max((_level(trial) + 1 for trial in self._held if trial.bits == bits), default=0)
        smaller = (level for level in range(begin, end) if sizes.at(level, bits) <= most)
        return next(smaller, end if bits < best.bits else None)

    def _at(self, level: int, bits: int, reason: str) -> Try:
        return Try(density_at(level), bits, reason)


_BEGIN = "to begin with"


def _where(curve: Sequence[tuple[int, float]], low: float) -> float | None:
    """Return the level at which the line through a curve's points falls to `low`."""
    for (level, above), (end, below) in pairwise(curve):
        if below <= low <= above and below < above:
            return level + (end - level) * (above - low) / (above - below)
    return None


class _Sizes:
    """Bytes of a file by density and bits, as files so far have it.

    A non-zero takes its bits and those of its position, which are the entropy of where non-zeros
    are; codebooks have two values for each bit more. The rest of a file is the same in all. These
    three are fitted to the files, as many of them as the files tell.
    """

    def __init__(self, files: Sequence[Tried]) -> None:
        rows = [(_parts(t.density or 1.0, t.bits), float(t.bytes or 0)) for t in files]
        for count in (3, 2, 1):
            self._weights = _fitted([(parts[:count], size) for parts, size in rows])
            if self._weights and all(weight >= 0 for weight in self._weights):
                return

    def at(self, level: int, bits: int) -> float:
        """Return about how many bytes the file has."""
        parts = _parts(density_at(level), bits)
        return sum(weight * part for weight, part in zip(self._weights, parts, strict=False))


def _parts(density: float, bits: int) -> tuple[float, float, float]:
    sparse = 1 - density
    entropy = -density * math.log2(density) - (sparse * math.log2(sparse) if sparse > 0 else 0.0)
    return density * bits + entropy, 1.0, 2.0**bits


def _fitted(rows: Sequence[tuple[Sequence[float], float]]) -> list[float]:
    """Return the weights of least squares, relative to the sizes; none if rows do not tell them."""
    width = len(rows[0][0])
    # Normal equations, with the right side as a last column.
    table = [
        [
            sum(parts[i] * other / size**2 for parts, size in rows for other in [[*parts, size][j]])
            for j in range(width + 1)
        ]
        for i in range(width)
    ]
    for i in range(width):
        pivot = max(range(i, width), key=lambda row: abs(table[row][i]))
        table[i], table[pivot] = table[pivot], table[i]
        if abs(table[i][i]) <= 1e-9 * max(abs(value) for row in table for value in row[:width]):
            return []
        for k in range(width):
            if k != i:
                factor = table[k][i] / table[i][i]
                table[k] = [a - factor * b for a, b in zip(table[k], table[i], strict=True)]
    return [table[i][width] / table[i][i] for i in range(width)]


def _level(trial: Tried) -> int:
    return level_of(trial.density or DENSEST)


def _words(trial: Tried) -> str:
    return f"density {trial.density:g} with {trial.bits} bits"


def _listed(bits: Sequence[int]) -> str:
    return ", ".join(map(str, bits))
