"""The plots of the page, as SVG; each has a description in words for screen readers."""

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

# Colours: of labels, grid lines, the threat, the lines of whiskers, and the factors.
_SOFT, _GRID, _THREAT, _INK = "#5d6877", "#e3e7ec", "#9a3412", "#1d2530"
_FACTORS = {"u": "#1f5f99", "v": "#0b6e63", "c": "#b3541e"}
# The models that were there before the compressed one have dashed curves.
_DASHES = {"before": "5 4", "dense": "9 3"}
# The largest number of classes with bars, so that the plot stays readable; the table has all.
_MOST_CLASSES = 20
# The width of every plot; this and the following lengths are in units of the SVG.
_WIDTH = 720
# The edges of the area in which the curve is drawn.
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 700, 36, 270
# The distance between bars of a class, the additional space after a class, and a bar's height.
_BAR, _CLASS_GAP, _BAR_HEIGHT = 14, 12, 10
# The distance between rows of layers, and a row's height.
_ROW, _ROW_HEIGHT = 26, 14
# Longer names of weights are cut off at the front.
_LONGEST_NAME = 26


def sides(report: Report) -> list[str]:
    """The sides that a report has: ``before`` always, ``dense`` and ``after`` as there are."""
    return [side for side in SIDES if side in report]


def curve(report: Report) -> Markup:
    """The accuracy of all models against epsilon, with 95 % intervals."""
    high = max(report[side]["curve"][-1]["epsilon"] for side in sides(report))
    x, y = Scale(0, high, _LEFT, _RIGHT), Scale(0, 1, _BOTTOM, _TOP)
    chance, epsilon = 1 / report["num_classes"], report["evaluation"]["epsilon"]
    parts = [_share_grid(y, _LEFT, _RIGHT)]
    parts += [
        text(x(tick), _BOTTOM + 20, f"{tick:g}", text_anchor="middle", fill=_SOFT)
        for tick in ticks(high)
    ]
    middle = (_LEFT + _RIGHT) // 2
    label = "epsilon, for images in [0, 1]"
    parts += [
        text(middle, _BOTTOM + 42, label, text_anchor="middle", fill=_SOFT),
        line(_LEFT, y(chance), _RIGHT, y(chance), stroke=_SOFT, stroke_dasharray="2 4"),
        text(_RIGHT - 2, y(chance) - 5, "chance", text_anchor="end", fill=_SOFT),
        line(x(epsilon), _TOP, x(epsilon), _BOTTOM, stroke=_THREAT, stroke_dasharray="6 4"),
        text(x(epsilon) + 5, _TOP + 12, f"threat: {epsilon:.3g}", fill=_THREAT),
    ]
    parts += [_curve_line(report[side]["curve"], side, x, y) for side in sides(report)]
    parts += [
        _proven_line(found, side, x, y)
        for side in sides(report)
        if (found := proven_curve(report[side]))
    ]
    parts.append(legend(56, 16, sides(report)))
    words = []
    for side in sides(report):
        words.append(f"{SIDES[side][1]}: {_in_words(report[side]['curve'])}")
        if proven := proven_curve(report[side]):
            words.append(f"{SIDES[side][1]}, proven: {_in_words(proven)}")
    title = "Robust accuracy against epsilon"
    return picture(_WIDTH, _BOTTOM + 50, title, "; ".join(words), *parts)


def _in_words(found: list[dict[str, Any]]) -> str:
    return ", ".join(f"{100 * p['accuracy']:.0f} % at {p['epsilon']:.3g}" for p in found)


def proven_curve(side: dict[str, Any]) -> list[dict[str, Any]]:
    """The points of what is proven of one side; none if nothing is or can be."""
    proven = side["proven"]
    return proven["curve"] if proven else []


def _proven_line(found: list[dict[str, Any]], side: str, x: Scale, y: Scale) -> Markup:
    """A dotted line with a small dot at each radius."""
    colour, _ = SIDES[side]
    places = [(x(point["epsilon"]), y(point["accuracy"])) for point in found]
    return Markup("").join(
        [
            element(
                "polyline",
                points=points(places),
                fill="none",
                stroke=colour,
                stroke_width=1.6,
                stroke_dasharray="1 3",
            ),
            *(element("circle", cx=px, cy=py, r=2, fill=colour) for px, py in places),
        ]
    )


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
                stroke_dasharray=_DASHES.get(side, "none"),
            ),
            *(marker(side, *place) for place in middle),
        ]
    )


def shown_classes(report: Report) -> list[dict[str, Any]]:
    """The classes that have bars: those with the lowest robust accuracy, the lowest first.

    The compressed model decides, or the uploaded one if there is none.
    """
    last = report[sides(report)[-1]]["per_class"]
    return sorted(last, key=lambda entry: entry["robust"]["accuracy"])[:_MOST_CLASSES]


def class_bars(report: Report) -> Markup:
    """The robust accuracy of all models on each class, with 95 % intervals."""
    classes = [entry["class"] for entry in shown_classes(report)]
    row = _BAR * len(sides(report)) + _CLASS_GAP
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
            parts.append(_class_bar(entry["robust"], side, x, top + _BAR * place))
            words.append(f"class {name} {SIDES[side][1]} {100 * entry['robust']['accuracy']:.0f} %")
    title = "Robust accuracy by class, least robust first"
    return picture(_WIDTH, bottom + 22, title, ", ".join(words), *parts)


def _class_bar(share: dict[str, Any], side: str, x: Scale, top: float) -> Markup:
    colour, _ = SIDES[side]
    look: dict[str, Any] = {"fill": colour}
    if side == "before":
        look = {"fill": "#dfe3e8", "stroke": colour}
    width = max(0.5, x(share["accuracy"]) - x(0))
    bar = element("rect", x=x(0), y=top, width=width, height=_BAR_HEIGHT, **look)
    low, high, middle = x(share["low"]), x(share["high"]), top + _BAR_HEIGHT // 2
    whisker = f"M{low:.1f} {middle - 3}v6m0 -3H{high:.1f}m0 -3v6"
    # The whisker has a white outline, so that it is visible on the bar, too.
    outline = element("path", d=whisker, fill="none", stroke="#fff", stroke_width=3.5)
    return Markup("").join(
        [bar, outline, element("path", d=whisker, fill="none", stroke=_INK, stroke_width=1.4)]
    )


def layers(report: Report) -> Markup:
    """For each layer the density of U, V and C, and the numbers of their distinct values."""
    found = report["layers"]
    bottom = 44 + _ROW * len(found)
    longest = max(len(layer["weight"]) for layer in found)
    left = min(190, 10 + 7 * longest)
    densities = [sum(layer["nonzeros"].values()) / layer["weights"] for layer in found]
    most = max(max(layer["distinct_values"].values()) for layer in found)
    x = Scale(0, max(*densities, 1e-6), left, 430)
    values = Scale(0, max(1.0, math.log2(max(most, 2))), 470, 690)
    parts = [_factor_legend(left), *_layer_axes(x, values, bottom)]
    for index, (layer, density) in enumerate(zip(found, densities, strict=True)):
        parts.append(_layer_row(layer, density, x, values, 36 + _ROW * index))
    words = "; ".join(
        f"{layer['weight']}: density {100 * density:.2g} %, at most "
        f"{max(layer['distinct_values'].values())} distinct values"
        for layer, density in zip(found, densities, strict=True)
    )
    title = "Density and distinct values of each layer"
    return picture(_WIDTH, bottom + 40, title, words, *parts)


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
    name = layer["weight"]
    if len(name) > _LONGEST_NAME:
        name = "…" + name[1 - _LONGEST_NAME :]
    parts = [text(x.start - 8, top + 11, name, text_anchor="end")]
    place = 0.0
    for factor, colour in _FACTORS.items():
        share = layer["nonzeros"][factor] / layer["weights"]
        start, end = x(place), x(place + share)
        width = end - start
        parts.append(element("rect", x=start, y=top, width=width, height=_ROW_HEIGHT, fill=colour))
        place += share
    for index, factor in enumerate(_FACTORS):
        distinct = layer["distinct_values"][factor]
        if distinct:
            parts.append(_factor_mark(factor, values(math.log2(distinct)), top + 1 + 6 * index))
    return Markup("").join(parts)
