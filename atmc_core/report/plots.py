"""The page's plots, each an SVG that also says in words what it shows."""

import math
from typing import Any

from markupsafe import Markup

from atmc_core.report.svg import (
    SIDES,
    Scale,
    element,
    legend,
    line,
    marker,
    picture,
    points,
    text,
    ticks,
)

Report = dict[str, Any]

_SOFT, _GRID = "#5d6877", "#e3e7ec"
_FACTORS = {"u": "#1f5f99", "v": "#0b6e63", "c": "#b3541e"}
#: More classes than this make bars that nobody reads; the table has all.
_MOST_CLASSES = 20


def sides(report: Report) -> list[str]:
    """``before``, and ``after`` if there is a compressed model."""
    return [side for side in SIDES if side in report]


def curve(report: Report) -> Markup:
    """Accuracy against epsilon with 95 % intervals, both models."""
    high = max(report[side]["curve"][-1]["epsilon"] for side in sides(report))
    x, y = Scale(0, high, 48, 700), Scale(0, 1, 270, 36)
    chance, epsilon = 1 / report["num_classes"], report["evaluation"]["epsilon"]
    parts = [_share_grid(y, 48, 700)]
    parts += [
        text(x(tick), 290, f"{tick:g}", text_anchor="middle", fill=_SOFT) for tick in ticks(high)
    ]
    parts += [
        text(374, 312, "epsilon, for images in [0, 1]", text_anchor="middle", fill=_SOFT),
        line(48, y(chance), 700, y(chance), stroke=_SOFT, stroke_dasharray="2 4"),
        text(698, y(chance) - 5, "chance", text_anchor="end", fill=_SOFT),
        line(x(epsilon), 36, x(epsilon), 270, stroke="#9a3412", stroke_dasharray="6 4"),
        text(x(epsilon) + 5, 48, f"threat: {epsilon:.3g}", fill="#9a3412"),
    ]
    parts += [_curve_line(report[side]["curve"], side, x, y) for side in sides(report)]
    parts.append(legend(56, 16, sides(report)))
    words = "; ".join(
        f"{SIDES[side][1]}: "
        + ", ".join(f"{100 * p['accuracy']:.0f} % at {p['epsilon']:.3g}" for p in points_of)
        for side, points_of in ((side, report[side]["curve"]) for side in sides(report))
    )
    return picture(720, 320, "Robust accuracy against epsilon", words, *parts)


def _share_grid(y: Scale, left: float, right: float) -> Markup:
    parts = []
    for share in (0, 0.2, 0.4, 0.6, 0.8, 1):
        parts += [
            line(left, y(share), right, y(share), stroke=_GRID),
            text(left - 6, y(share) + 4, f"{100 * share:.0f} %", text_anchor="end", fill=_SOFT),
        ]
    return Markup("").join(parts)


def _curve_line(found: list[dict[str, Any]], side: str, x: Scale, y: Scale) -> Markup:
    colour, _ = SIDES[side]
    upper = [(x(point["epsilon"]), y(point["high"])) for point in found]
    lower = [(x(point["epsilon"]), y(point["low"])) for point in found]
    middle = [(x(point["epsilon"]), y(point["accuracy"])) for point in found]
    return Markup("").join(
        [
            element("polygon", points=points(upper + lower[::-1]), fill=colour, opacity=0.14),
            element(
                "polyline",
                points=points(middle),
                fill="none",
                stroke=colour,
                stroke_width=2,
                stroke_dasharray="5 4" if side == "before" else "none",
            ),
            *(marker(side, *place) for place in middle),
        ]
    )


def shown_classes(report: Report) -> list[dict[str, Any]]:
    """The classes that have bars, least robust first, by the model that would ship."""
    last = report[sides(report)[-1]]["per_class"]
    return sorted(last, key=lambda entry: entry["robust"]["accuracy"])[:_MOST_CLASSES]


def class_bars(report: Report) -> Markup:
    """Robust accuracy of each class, with 95 % intervals, both models."""
    classes = [entry["class"] for entry in shown_classes(report)]
    row = 14 * len(sides(report)) + 12
    bottom = 34 + row * len(classes)
    x = Scale(0, 1, 70, 690)
    parts = [legend(74, 14, sides(report))]
    for share in (0, 0.25, 0.5, 0.75, 1):
        label = f"{100 * share:.0f} %"
        parts += [
            line(x(share), 30, x(share), bottom, stroke=_GRID),
            text(x(share), bottom + 16, label, text_anchor="middle", fill=_SOFT),
        ]
    words = []
    for index, name in enumerate(classes):
        top = 36 + row * index
        parts.append(text(62, top + row / 2 - 2, f"class {name}", text_anchor="end"))
        for place, side in enumerate(sides(report)):
            entry = next(e for e in report[side]["per_class"] if e["class"] == name)
            parts.append(_class_bar(entry["robust"], side, x, top + 14 * place))
            words.append(f"class {name} {SIDES[side][1]} {100 * entry['robust']['accuracy']:.0f} %")
    title = "Robust accuracy by class, least robust first"
    return picture(720, bottom + 22, title, ", ".join(words), *parts)


def _class_bar(share: dict[str, Any], side: str, x: Scale, top: float) -> Markup:
    colour, _ = SIDES[side]
    look: dict[str, Any] = {"fill": colour}
    if side == "before":
        look = {"fill": "#dfe3e8", "stroke": colour}
    width = max(0.5, x(share["accuracy"]) - x(0))
    bar = element("rect", x=x(0), y=top, width=width, height=10, **look)
    low, high, middle = x(share["low"]), x(share["high"]), top + 5
    whisker = f"M{low:.1f} {middle - 3}v6m0 -3H{high:.1f}m0 -3v6"
    # A light seam, so that it shows on the bar, too.
    seam = element("path", d=whisker, fill="none", stroke="#fff", stroke_width=3.5)
    return Markup("").join(
        [bar, seam, element("path", d=whisker, fill="none", stroke="#1d2530", stroke_width=1.4)]
    )


def layers(report: Report) -> Markup:
    """For each layer the density of U, V and C, and how many distinct values each holds."""
    found, row = report["layers"], 26
    bottom = 44 + row * len(found)
    longest = max(len(layer["weight"]) for layer in found)
    left = min(190, 10 + 7 * longest)
    densities = [sum(layer["nonzeros"].values()) / layer["weights"] for layer in found]
    most = max(max(layer["distinct_values"].values()) for layer in found)
    x = Scale(0, max(*densities, 1e-6), left, 430)
    values = Scale(0, max(1.0, math.log2(max(most, 2))), 470, 690)
    parts = [_factor_legend(left), *_layer_axes(x, values, bottom)]
    for index, (layer, density) in enumerate(zip(found, densities, strict=True)):
        parts.append(_layer_row(layer, density, x, values, 36 + row * index))
    words = "; ".join(
        f"{layer['weight']}: density {100 * density:.2g} %, at most "
        f"{max(layer['distinct_values'].values())} distinct values"
        for layer, density in zip(found, densities, strict=True)
    )
    title = "Density and distinct values of each layer"
    return picture(720, bottom + 40, title, words, *parts)


def _factor_legend(left: float) -> Markup:
    parts = []
    for index, (factor, colour) in enumerate(_FACTORS.items()):
        parts += [
            _factor_mark(factor, left + 6 + 44 * index, 14),
            text(left + 16 + 44 * index, 18, factor.upper(), fill=colour, font_weight="bold"),
        ]
    return Markup("").join(parts)


def _factor_mark(factor: str, x: float, y: float) -> Markup:
    colour = _FACTORS[factor]
    if factor == "u":
        return element("circle", cx=x, cy=y, r=4.5, fill=colour)
    if factor == "v":
        return element("rect", x=x - 4, y=y - 4, width=8, height=8, fill=colour)
    corners = [(x, y - 5), (x + 5, y + 4), (x - 5, y + 4)]
    return element("polygon", points=points(corners), fill=colour)


def _layer_axes(x: Scale, values: Scale, bottom: float) -> list[Markup]:
    parts = []
    for tick in ticks(x.high, 4):
        label = f"{100 * tick:.4g} %"
        parts += [
            line(x(tick), 30, x(tick), bottom, stroke=_GRID),
            text(x(tick), bottom + 14, label, text_anchor="middle", fill=_SOFT),
        ]
    whole = math.ceil(values.high)
    for power in range(0, whole + 1, max(1, whole // 5)):
        if power <= values.high + 1e-9:
            parts += [
                line(values(power), 30, values(power), bottom, stroke=_GRID),
                text(values(power), bottom + 14, f"{2**power:,}", text_anchor="middle", fill=_SOFT),
            ]
    middle = (x.start + x.end) / 2
    parts.append(
        text(
            middle,
            bottom + 32,
            "non-zeros, share of the layer's dense weights",
            text_anchor="middle",
            fill=_SOFT,
        )
    )
    parts.append(
        text(580, bottom + 32, "distinct non-zero values", text_anchor="middle", fill=_SOFT)
    )
    return parts


def _layer_row(
    layer: dict[str, Any], density: float, x: Scale, values: Scale, top: float
) -> Markup:
    name = layer["weight"] if len(layer["weight"]) <= 26 else "…" + layer["weight"][-25:]
    parts = [text(x.start - 8, top + 11, name, text_anchor="end")]
    place = 0.0
    for factor, colour in _FACTORS.items():
        share = layer["nonzeros"][factor] / layer["weights"]
        start, end = x(place), x(place + share)
        parts.append(element("rect", x=start, y=top, width=end - start, height=14, fill=colour))
        place += share
    for index, factor in enumerate(_FACTORS):
        distinct = layer["distinct_values"][factor]
        if distinct:
            parts.append(_factor_mark(factor, values(math.log2(distinct)), top + 1 + 6 * index))
    return Markup("").join(parts)
