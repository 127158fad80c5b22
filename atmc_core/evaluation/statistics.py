"""Confidence intervals and tests for shares of images, in plain Python."""

import math
from dataclasses import dataclass

#: The confidence level of all intervals.
CONFIDENCE = 0.95
#: The 97.5 % quantile of the normal distribution, for two-sided intervals of that level.
Z = 1.959963984540054


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % confidence interval from ``low`` to ``high``."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedCounts:
    """How many images both of two classifiers get right, only one of them, or neither."""

    both: int
    only_first: int
    only_second: int
    neither: int

    @property
    def count(self) -> int:
        """The number of images."""
        return self.both + self.only_first + self.only_second + self.neither


def wilson(correct: int, count: int) -> Estimate:
    """The share ``correct / count`` with Wilson's score interval (Wilson, 1927).

    Raises:
        ValueError: unless 0 <= correct <= count and count is at least 1.
    """
    if count < 1 or not 0 <= correct <= count:
        raise ValueError(f"{correct} of {count} is no share")
    share, z2 = correct / count, Z * Z
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    # For a share of 0 or 1 the interval ends there exactly; rounding must not move that end.
    low = 0.0 if correct == 0 else centre - half
    high = 1.0 if correct == count else centre + half
    return Estimate(share, low, high)


def images_for(share: float, half_width: float) -> int:
    """The smallest number of images whose Wilson interval is no wider than 2 ``half_width``.

    Args:
        share: the share of images that are right, in [0, 1].
        half_width: half the interval's allowed width, above 0 and below 0.5.
    """
    low, high = 1, 2
    while _wilson_half_width(share, high) > half_width:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if _wilson_half_width(share, middle) > half_width:
            low = middle
        else:
            high = middle
    return high


def _wilson_half_width(share: float, count: int) -> float:
    spread = math.sqrt(share * (1 - share) / count + Z * Z / (4 * count**2))
    return Z * spread / (1 + Z * Z / count)


def paired_difference(counts: PairedCounts) -> Estimate:
    """The second classifier's accuracy minus the first's, with Newcombe's interval.

    Source: method 10 of Newcombe, "Improved confidence intervals for the difference between
    binomial proportions based on paired data", Statistics in Medicine 17 (1998). It combines the
    Wilson intervals of the two shares with their correlation, which is corrected for continuity.
    """
    n = counts.count
    first = wilson(counts.both + counts.only_first, n)
    second = wilson(counts.both + counts.only_second, n)
    correlation = _correlation(counts)

    def reach(up: float, down: float) -> float:
        return math.sqrt(max(0.0, up * up - 2 * correlation * up * down + down * down))

    difference = (counts.only_second - counts.only_first) / n
    low = difference - reach(second.value - second.low, first.high - first.value)
    high = difference + reach(first.value - first.low, second.high - second.value)
    return Estimate(difference, max(-1.0, low), min(1.0, high))


def _correlation(counts: PairedCounts) -> float:
    """The phi coefficient of the 2x2 table, corrected for continuity if it is positive."""
    a, b, c, d = counts.both, counts.only_first, counts.only_second, counts.neither
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    if margins == 0:
        return 0.0
    product = a * d - b * c
    corrected = product if product < 0 else max(0.0, product - counts.count / 2)
    return corrected / math.sqrt(margins)


@dataclass(frozen=True)
class McNemar:
    """Two-sided p-values of the hypothesis that both classifiers are equally often right."""

    exact: float
    mid_p: float


def mcnemar(only_first: int, only_second: int) -> McNemar:
    """McNemar's exact conditional test and its mid-p form.

    The exact test is conservative; the mid-p form is not, and keeps to its level in practice
    (Fagerland, Lydersen, Laake, "The McNemar test for binary matched-pairs data", BMC Medical
    Research Methodology 13, 2013).

    Args:
        only_first: the number of images that only the first classifier gets right.
        only_second: the number of images that only the second one gets right.

    Raises:
        ValueError: if a count is negative.
    """
    if min(only_first, only_second) < 0:
        raise ValueError(f"{only_first} and {only_second} are no counts")
    n, least = only_first + only_second, min(only_first, only_second)
    # The sums are of integers, because floating point cannot hold 2^n for thousands of images.
    term = tail = 1
    for i in range(least):
        term = term * (n - i) // (i + 1)
        tail += term
    whole = 2**n
    return McNemar(exact=min(1.0, 2 * tail / whole), mid_p=min(1.0, (2 * tail - term) / whole))
