"""The figure of a sweep in the terminal: accuracy against bytes of the file, on a log axis."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

HEIGHT = 14
_LEFT = 7  # of an axis's number, such as "100 % ┤"
_LEGEND = "● robust, on the front  · robust, dominated  ★ best  ○ clean"
_STYLES = {"●": "bold green", "★": "bold yellow", "·": "dim", "○": "cyan", "─": "red"}


@dataclass(frozen=True)
class Point:
    """A trial's figures: bytes of its file, accuracies from 0 to 1."""

    trial: int
    file_bytes: int
    clean: float
    robust: float
    front: bool
    best: bool


def figure(points: Sequence[Point], floor: float | None, width: int) -> Text:
    """Return the figure in at most `width` characters a line; `floor` is a line in it.

    Each point is marked at its robust and at its clean accuracy; the former has the trial's number.
    """
    columns = max(20, min(width, 100) - _LEFT)
    sizes = _Axis(*_widened([math.log(point.file_bytes) for point in points], 0.2), columns - 4)
    shares = [share for point in points for share in (point.clean, point.robust)]
    rows = _Axis(*_tenths([*shares, *([] if floor is None else [floor])]), HEIGHT)
    canvas = [[" "] * columns for _ in range(HEIGHT)]
    if floor is not None:
        canvas[rows.cell(floor)] = ["─"] * columns
    # What matters more is drawn later, over the rest.
    for point in sorted(points, key=lambda point: (point.best, point.front)):
        column = sizes.cell(math.log(point.file_bytes))
        canvas[rows.cell(point.clean)][column] = "○"
        mark = "★" if point.best else "●" if point.front else "·"
        row = canvas[rows.cell(point.robust)]
        for offset, character in enumerate(f"{mark}{point.trial}"):
            row[column + offset] = character
    drawn = Text(no_wrap=True, overflow="crop")
    labels = {rows.cell(share): f"{100 * share:3.0f} %" for share in (rows.low, rows.high)}
    if floor is not None:
        labels[rows.cell(floor)] = f"{100 * floor:3.0f} %"
    for place in reversed(range(HEIGHT)):
        drawn.append(f"{labels.get(place, ''):>5} {'┤' if place in labels else '│'}")
        for character in canvas[place]:
            drawn.append(character, _STYLES.get(character))
        drawn.append("\n")
    drawn.append(" " * (_LEFT - 1) + "└" + "─" * columns + "\n")
    drawn.append(" " * _LEFT + _ticks(sizes, columns) + "\n")
    drawn.append(" " * _LEFT + _LEGEND)
    return drawn


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    cells: int

    def cell(self, value: float) -> int:
        share = (value - self.low) / (self.high - self.low)
        return min(self.cells - 1, max(0, round(share * (self.cells - 1))))


def _widened(values: Sequence[float], by: float) -> tuple[float, float]:
    return min(values) - by, max(values) + by


def _tenths(shares: Sequence[float]) -> tuple[float, float]:
    low, high = math.floor(10 * min(shares)) / 10, math.ceil(10 * max(shares)) / 10
    return (low, high) if high > low else (max(0.0, low - 0.1), min(1.0, high + 0.1))


def _ticks(sizes: _Axis, columns: int) -> str:
    """Numbers of 1, 2 and 5 with their zeros below the axis, as many as have room."""
    line = ""
    for power in range(10):
        for digit in (1, 2, 5):
            number = digit * 10**power
            if not sizes.low <= math.log(number) <= sizes.high:
                continue
            place, text = sizes.cell(math.log(number)), file_size(number)
            if place >= len(line) + bool(line) and place + len(text) <= columns:
                line = line.ljust(place) + text
    return line or file_size(round(math.exp((sizes.low + sizes.high) / 2)))


def file_size(count: int) -> str:
    """A number of bytes to read: 950 B, 4.37 KB, 35 KB."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} B"
