"""Intervals and tests agree with published worked examples and with scipy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from atmc_core.evaluation.statistics import (
    PairedCounts,
    images_for,
    mcnemar,
    paired_difference,
    wilson,
)


@pytest.mark.parametrize(
    ("correct", "count", "low", "high"),
    # Newcombe, "Two-sided confidence intervals for the single proportion" (1998), table I, method 3
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(
    correct: int, count: int, low: float, high: float
) -> None:
    estimate = wilson(correct, count)
    assert estimate.value == correct / count
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_wilson_agrees_with_scipy_and_contains_the_share(count: int, share: float) -> None:
    correct = round(share * count)
    estimate = wilson(correct, count)
    theirs = stats.binomtest(correct, count).proportion_ci(0.95, method="wilson")
    assert (estimate.low, estimate.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


@pytest.mark.parametrize(("correct", "count"), [(0, 0), (3, 2), (-1, 5)])
def test_a_share_that_is_none_is_refused(correct: int, count: int) -> None:
    with pytest.raises(ValueError, match="is no share"):
        wilson(correct, count)


def test_the_paired_difference_has_the_published_interval() -> None:
    # Bentur et al. (2009) as in Fagerland, Lydersen, Laake, "Recommended tests and confidence
    # intervals for paired binomial proportions", Statistics in Medicine 33 (2014); theirs is the
    # first share minus the second.
    estimate = paired_difference(PairedCounts(1, 1, 7, 12))
    assert (estimate.low, estimate.high) == pytest.approx((0.026, 0.507), abs=5e-4)


@pytest.mark.parametrize(
    "table",
    [
        (20, 12, 2, 16),  # Armitage and Berry (1994), two media for one culture
        (59, 6, 16, 80),  # Cavo et al. (2012), response before and after a therapy
        (1, 1, 7, 12),  # Bentur et al. (2009)
        (30, 20, 20, 10),  # negative correlation: no correction for continuity
        (5, 5, 5, 6),  # a correlation that the correction takes whole
        (43, 0, 7, 0),  # nobody wrong twice
    ],
)
def test_the_paired_difference_is_wilsons_ends_squared_and_added(
    table: tuple[int, int, int, int],
) -> None:
    """Newcombe's method 10 from scipy's Wilson limits and numpy's correlation of the images."""
    counts = PairedCounts(*table)
    first = np.repeat([1, 1, 0, 0], table)
    second = np.repeat([1, 0, 1, 0], table)
    ends = []
    for right in (first, second):
        interval = stats.binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
        ends.append((right.mean() - interval.low, interval.high - right.mean()))
    phi = 0.0 if 0 in (first.std(), second.std()) else np.corrcoef(first, second)[0, 1]
    if phi > 0:
        product = table[0] * table[3] - table[1] * table[2]
        phi *= max(0, product - len(first) / 2) / product
    (down1, up1), (down2, up2) = ends
    low = np.sqrt(down2**2 + up1**2 - 2 * phi * down2 * up1)
    high = np.sqrt(down1**2 + up2**2 - 2 * phi * down1 * up2)
    difference = second.mean() - first.mean()
    estimate = paired_difference(counts)
    assert estimate.value == pytest.approx(difference)
    assert estimate.low == pytest.approx(max(-1, difference - low))
    assert estimate.high == pytest.approx(min(1, difference + high))


cells = st.integers(0, 500)


@given(cells, cells, cells, cells)
def test_the_paired_interval_contains_the_difference_and_turns_with_it(
    both: int, first: int, second: int, neither: int
) -> None:
    if both + first + second + neither == 0:
        return
    estimate = paired_difference(PairedCounts(both, first, second, neither))
    assert -1 <= estimate.low <= estimate.value <= estimate.high <= 1
    turned = paired_difference(PairedCounts(both, second, first, neither))
    assert (turned.value, turned.low, turned.high) == pytest.approx(
        (-estimate.value, -estimate.high, -estimate.low)
    )


def test_mcnemar_gives_the_published_p_values() -> None:
    # Fagerland, Lydersen, Laake (2013): airway hyper-responsiveness, 1 and 7 discordant pairs.
    test = mcnemar(1, 7)
    assert test.exact == pytest.approx(0.0703, abs=5e-5)
    assert test.mid_p == pytest.approx(0.0391, abs=5e-5)


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_mcnemar_is_the_binomial_test_and_mid_p_takes_half_of_the_observed(
    first: int, second: int
) -> None:
    test = mcnemar(first, second)
    n, least = first + second, min(first, second)
    assert test.exact == pytest.approx(
        stats.binomtest(least, n).pvalue if n else 1.0, rel=1e-9, abs=1e-250
    )
    half = 2 * stats.binom.cdf(least, n, 0.5) - stats.binom.pmf(least, n, 0.5)
    assert test.mid_p == pytest.approx(min(1.0, half), rel=1e-9, abs=1e-250)


@given(st.floats(0, 1), st.floats(0.01, 0.3))
def test_the_images_an_interval_needs_are_the_fewest(share: float, half_width: float) -> None:
    count = images_for(share, half_width)

    def width(images: int) -> float:
        correct = share * images
        theirs = stats.norm.ppf(0.975)
        z2 = theirs**2
        return float(
            theirs
            * ((correct / images * (1 - share) + z2 / (4 * images)) / images) ** 0.5
            / (1 + z2 / images)
        )

    assert width(count) <= half_width + 1e-12
    assert count <= 2 or width(count - 1) > half_width - 1e-12
