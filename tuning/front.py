"""Which trials are worth having: the Pareto front of their figures, and the best of them."""

from collections.abc import Mapping, Sequence
from typing import Any

ROBUST, CLEAN, BYTES = "robust_accuracy_after", "clean_accuracy_after", "file_bytes"
LATENCY = "latency_c_s"

Headline = Mapping[str, Any]


def front(headlines: Mapping[int, Headline]) -> list[int]:
    """Return the trials that no other is at least as good as in everything and better in something.

    What counts are robust accuracy, clean accuracy and the bytes of the file, and latency where all
    have it. Of trials with the same figures all are on the front. Those without a file have no
    place on it; `headlines` are the figures of jobs that have succeeded, by the trial's index.
    """
    figures = {index: _figures(found) for index, found in headlines.items() if _is_whole(found)}
    if figures and all(len(found) == _MOST for found in figures.values()):
        compared = figures
    else:
        compared = {index: found[: _MOST - 1] for index, found in figures.items()}
    return [
        index
        for index, mine in sorted(compared.items())
        if not any(_dominates(other, mine) for other in compared.values())
    ]


def best(headlines: Mapping[int, Headline]) -> int | None:
    """Return the trial of the greatest robust accuracy, of several alike the smallest file."""
    whole = {index: found for index, found in headlines.items() if _is_whole(found)}
    return min(whole, key=lambda index: _order(whole[index], index), default=None)


_MOST = 4


def _is_whole(headline: Headline) -> bool:
    return all(headline.get(name) is not None for name in (ROBUST, CLEAN, BYTES))


def _figures(headline: Headline) -> Sequence[float]:
    """Return figures of which more is better."""
    found = [headline[ROBUST], headline[CLEAN], -headline[BYTES]]
    if headline.get(LATENCY) is not None:
        found.append(-headline[LATENCY])
    return found


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return tuple(one) != tuple(other) and all(a >= b for a, b in zip(one, other, strict=True))


def _order(headline: Headline, index: int) -> tuple[float, float, int]:
    return -headline[ROBUST], headline[BYTES], index
