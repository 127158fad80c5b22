"""Timing of several sides in one run, so that noise affects all of them alike."""

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any


def interleaved(sides: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median time of each side, in seconds.

    The sides are called in turn, ``rounds`` times each, after one call each to warm up.
    """
    for run in sides.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def print_result(figures: dict[str, Any]) -> None:
    """Print the benchmark's last line: a JSON object, with numbers to four digits."""
    rounded = {
        name: float(f"{value:.4g}") if isinstance(value, float) else value
        for name, value in figures.items()
    }
    print(json.dumps(rounded))


def say(line: str) -> None:
    """Print progress to standard error; standard output is for the result."""
    print(line, file=sys.stderr, flush=True)
