"""Parts of SVG images: elements, scales, ticks, markers and legends."""

import math
from collections.abc import Iterable

from markupsafe import Markup, escape

#: The colour and the name of each model on the page, in the order of its columns.
SIDES = {
    "before": ("#5b6472", "uploaded"),
    "dense": ("#1f5f99", "dense robust"),
    "after": ("#0b6e63", "compressed"),
}


# The distances of ticks are these multiples of powers of ten.
_ROUND = (1, 2, 2.5, 5, 10)
# Numbers that differ by this share are equal but for rounding.
_ROUNDING = 1e-9


def element(name: str, *content: str, **attributes: object) -> Markup:
    """An element with escaped attributes; ``stroke_width=2`` becomes ``stroke-width="2"``.

    Args:
        name: the element's name.
        content: what is inside the element, already escaped.
        attributes: its attributes.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_short(value))}"'
        for key, value in attributes.items()
    )
    inner = Markup("").join(content)
    return Markup(f"<{name}{written}>{inner}</{name}>")


def _short(value: object) -> object:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


def text(x: float, y: float, words: str, **attributes: object) -> Markup:
    """A text, which is escaped, at a point."""
    return element("text", escape(words), x=x, y=y, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, **attributes: object) -> Markup:
    """A line from one point to another."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, **attributes)


def points(pairs: Iterable[tuple[float, float]]) -> str:
    """The value of the attribute ``points`` of polygons and polylines."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in pairs)


def picture(width: float, height: float, title: str, described: str, *content: str) -> Markup:
    """A complete SVG image with a title and a description for screen readers."""
    return element(
        "svg",
        element("title", escape(title)),
        element("desc", escape(described)),
        *content,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_label=f"{title}. {described}",
        font_family="system-ui, sans-serif",
        font_size=12,
        fill="#1d2530",
    )


class Scale:
    """Maps the range from ``low`` to ``high`` linearly to the range from ``start`` to ``end``."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.high, self.start, self.end = low, high, start, end

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def ticks(high: float, most: int = 6) -> list[float]:
    """Round numbers from 0 to ``high`` at equal distances, at most ``most`` + 1 of them."""
    rough = high / most
    power = 10.0 ** math.floor(math.log10(rough))
    distance = next(m * power for m in _ROUND if m * power >= rough * (1 - _ROUNDING))
    return [i * distance for i in range(int(high / distance + _ROUNDING) + 1)]


def marker(side: str, x: float, y: float) -> Markup:
    """A point of a plot: a circle, a diamond or a square, by model.

    Args:
        side: ``before``, ``dense`` or ``after``.
        x: the point's place.
        y: the point's place.
    """
    colour, _ = SIDES[side]
    if side == "before":
        return element("circle", cx=x, cy=y, r=4, fill="#fff", stroke=colour, stroke_width=2)
    if side == "dense":
        corners = [(x, y - 5.5), (x + 5.5, y), (x, y + 5.5), (x - 5.5, y)]
        return element("polygon", points=points(corners), fill=colour)
    return element("rect", x=x - 4, y=y - 4, width=8, height=8, fill=colour)


def legend(x: float, y: float, sides: Iterable[str]) -> Markup:
    """The markers and names of the models, side by side, beginning at a point."""
    entries = []
    for side in sides:
        _, name = SIDES[side]
        entries += [marker(side, x, y), text(x + 10, y + 4, name)]
        x += 34 + 6.5 * len(name)
    return Markup("").join(entries)
