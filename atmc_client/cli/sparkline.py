"""A sparkline: how a figure has moved, in one line of a terminal."""

import math
from collections.abc import Sequence
from itertools import pairwise

_BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int) -> str:
    """Return the values from left to right, in at most `width` characters.

    More values than characters are averaged, neighbours with neighbours. The lowest is the lowest
    block and the highest the highest; values that are all the same are the lowest. A value that is
    no finite number is a blank.
    """
    drawn = _fitted(values, width)
    finite = [value for value in drawn if math.isfinite(value)]
    if not finite:
        return " " * len(drawn)
    low, spread = min(finite), max(finite) - min(finite)
    scale = (len(_BLOCKS) - 1) / spread if spread else 0.0
    return "".join(
        _BLOCKS[round((value - low) * scale)] if math.isfinite(value) else " " for value in drawn
    )


def _fitted(values: Sequence[float], width: int) -> Sequence[float]:
    if len(values) <= width:
        return values
    edges = [place * len(values) // width for place in range(width + 1)]
    parts = [values[start:end] for start, end in pairwise(edges)]
    return [sum(part) / len(part) for part in parts]
