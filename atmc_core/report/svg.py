"""A few words of SVG: elements, scales and ticks."""

import math
from collections.abc import Iterable

from markupsafe import Markup, escape

#: What the page calls the two models everywhere: colour and name.
SIDES = {"before": ("#5b6472", "uploaded"), "after": ("#0b6e63", "compressed")}


def element(name: str, *content: str, **attributes: object) -> Markup:
    """One element; ``stroke_width=2`` becomes ``stroke-width="2"``; everything is escaped."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_short(value))}"'
        for key, value in attributes.items()
    )
    inner = Markup("").join(content)
    return Markup(f"<{name}{written}>{inner}</{name}>")


def _short(value: object) -> object:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


def text(x: float, y: float, words: str, **attributes: object) -> Markup:
    return element("text", escape(words), x=x, y=y, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, **attributes: object) -> Markup:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, **attributes)


def points(pairs: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in pairs)


def picture(width: float, height: float, title: str, described: str, *content: str) -> Markup:
    """A whole image that screen readers announce by its title and description."""
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
    """Maps figures from ``low`` to ``high`` to places from ``start`` to ``end``."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.high, self.start, self.end = low, high, start, end

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def ticks(high: float, most: int = 6) -> list[float]:
    """Round figures from 0 up to ``high``, at most ``most`` and one."""
    rough = high / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * (1 - 1e-9))
    return [i * step for i in range(int(high / step + 1e-9) + 1)]


def marker(side: str, x: float, y: float) -> Markup:
    """A hollow circle for the uploaded model, a full square for the compressed one."""
    colour, _ = SIDES[side]
    if side == "before":
        return element("circle", cx=x, cy=y, r=4, fill="#fff", stroke=colour, stroke_width=2)
    return element("rect", x=x - 4, y=y - 4, width=8, height=8, fill=colour)


def legend(x: float, y: float, sides: Iterable[str]) -> Markup:
    """One entry beside the other."""
    entries = []
    for side in sides:
        _, name = SIDES[side]
        entries += [marker(side, x, y), text(x + 10, y + 4, name)]
        x += 34 + 6.5 * len(name)
    return Markup("").join(entries)
