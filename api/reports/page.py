"""Renders a report as one self-contained page."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from jobstore.tables import Job

_environment = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)

ACCURACIES = {
    "clean": "Clean images",
    "fgsm": "FGSM",
    "pgd": "PGD",
    "robust": "All of them, the worst for each image",
}


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _points(change: float) -> str:
    # A true minus sign, as wide as the plus.
    return f"{100 * change:+.2f}".replace("-", "\u2212")


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} GiB"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    return " ".join(f"{value} {unit}" for value, unit in parts if value) or "0 s"


_environment.filters |= {
    "percent": _percent,
    "points": _points,
    "size": _size,
    "duration": _duration,
    "count": lambda number: f"{number:,}",
}


def render(job: Job, report: dict[str, Any]) -> str:
    """Return the HTML of a report (`report.json`), headline first; every text in it is escaped."""
    template = _environment.get_template("report.html")
    return template.render(
        job=job, report=report, figures=report["headline"], accuracies=ACCURACIES
    )
