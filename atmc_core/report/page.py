"""``report.html``: a page that needs no network, no script and no other file."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from atmc_core.report import plots, words
from atmc_core.report.svg import SIDES

_environment = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters |= {
    "percent": words.percent,
    "points": words.points,
    "interval": words.interval,
    "size": words.size,
    "duration": words.duration,
    "figure": words.figure,
    "milliseconds": words.milliseconds,
    "in_255": words.in_255,
    "p_value": words.p_value,
    "count": lambda number: f"{number:,}",
}


def _changes(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The differences that the page shows, by what the compressed model is held against."""
    names = {"difference": "before", "difference_from_dense": "dense"}
    return {SIDES[side][1]: report[name] for name, side in names.items() if name in report}


def render(report: dict[str, Any]) -> str:
    """The page of a report, as HTML; all texts of the report are escaped."""
    present = plots.sides(report)
    return _environment.get_template("page.html").render(
        report=report,
        headline=report["headline"],
        verdict=report["acceptance"],
        evaluation=report["evaluation"],
        sides={side: SIDES[side][1] for side in present},
        result=report[present[-1]],
        attack_name=words.attack_name,
        bound_names=words.BOUNDS,
        speed_names=words.SPEED,
        int8_note=words.int8_note(report["int8"]) if report["int8"] else "",
        summary=words.summary(report),
        changes=_changes(report),
        has_proofs=any(plots.proven_curve(report[side]) for side in present),
        threshold_names=words.THRESHOLDS,
        norm_name=words.NORMS[report["evaluation"]["norm"]],
        curve=plots.curve(report),
        class_bars=plots.class_bars(report),
        classes_shown=len(plots.shown_classes(report)),
        layer_plot=plots.layers(report) if "layers" in report else None,
        settings=dict(words.leaves(report["spec"])),
    )
