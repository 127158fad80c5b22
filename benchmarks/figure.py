"""The paper's figure: accuracy against the ratio, with the paper's curves behind ours."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt

#: The points of the paper's figure, read off by eye (+-0.01), by data set and system: the nominal
#: ratio, the clean accuracy and the accuracy under PGD.
PAPER: dict[str, dict[str, list[tuple[float, float, float]]]] = {
    "mnist": {
        "da": [(1.0, 0.98, 0.783)],
        "atmc-32": [(0.0015, 0.778, 0.605), (0.01, 0.872, 0.723)],
        "atmc-8": [(0.005, 0.872, 0.73), (0.01, 0.95, 0.728)],
    },
    "cifar10": {
        "da": [(1.0, 0.885, 0.664)],
        "nap": [(0.01, 0.93, 0.035)],
        "ap": [(0.001, 0.676, 0.48), (0.01, 0.86, 0.643)],
        "atmc-32": [(0.001, 0.707, 0.515), (0.005, 0.837, 0.632), (0.01, 0.861, 0.65)],
        "atmc-8": [(0.0013, 0.79, 0.589), (0.0033, 0.855, 0.637)],
    },
}
_COLOURS = {
    "da": "#333333",
    "nap": "#8c8c8c",
    "ap": "#0072b2",
    "al0": "#009e73",
    "alr": "#cc79a7",
    "atmc-32": "#e69f00",
    "atmc-8": "#d55e00",
    "atmc-4": "#b00020",
    "atmc-3": "#7b1fa2",
    "atmc-2": "#3f51b5",
}
# The title of each panel (with settings of the table), our figure in it, and the column of the
# paper's that belongs to it.
_PANELS = (
    ("clean", "clean_accuracy", 1),
    ("under PGD; dotted: PGD-{strong_steps} x {strong_restarts}, too", "paper_pgd_accuracy", 2),
)
# The accuracy under the stronger PGD, which is drawn dotted.
_HARDER = "pgd_accuracy"


def draw(table: dict[str, Any], path: Path) -> None:
    """Draw a table of ``benchmarks.table`` as an SVG file."""
    plt.rcParams.update({"svg.hashsalt": "atmc", "font.size": 10, "svg.fonttype": "none"})
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), sharex=True, layout="constrained")
    for axis, (title, key, column) in zip(axes, _PANELS, strict=True):
        for system, points in PAPER.get(table["dataset"], {}).items():
            ratios, values = [p[0] for p in points], [p[column] for p in points]
            style = {"color": _COLOURS[system], "alpha": 0.35, "linewidth": 4}
            axis.plot(ratios, values, marker="s", markersize=7, **style)
        for system, rows in _systems(table["rows"]).items():
            ratios = [row["nominal_ratio"] for row in rows]
            axis.plot(
                ratios,
                [row[key] for row in rows],
                marker="o",
                markersize=4,
                linewidth=1.3,
                color=_COLOURS.get(system, "#000000"),
                label=system,
            )
            if column == 2:
                values = [row[_HARDER] for row in rows]
                style = {"color": _COLOURS.get(system, "#000000"), "linestyle": ":"}
                axis.plot(ratios, values, marker=".", markersize=4, linewidth=1, **style)
        axis.set(xscale="log", ylim=(0, 1), xlabel="nominal ratio", ylabel="accuracy")
        axis.set_title(title.format_map(table["settings"]))
        axis.grid(alpha=0.25)
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside right center",
        fontsize=8,
        title="ours thin,\nthe paper's\nwide and pale" if table["dataset"] in PAPER else None,
        title_fontsize=8,
    )
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _systems(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The rows by system, in the order of the table; those of a system from small to large."""
    systems: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        name = f"atmc-{row['bits']}" if row["method"] == "atmc" else row["method"]
        systems.setdefault(name, []).append(row)
    return {
        name: sorted(own, key=lambda row: row["nominal_ratio"]) for name, own in systems.items()
    }
