"""Writes the files of a report."""

import json
import re
from pathlib import Path
from typing import Any

from atmc_core.report import model_card, page


def write(report: dict[str, Any], folder: Path) -> None:
    """Write ``report.json``, ``report.html`` and ``model_card.md`` into ``folder``."""
    (folder / "report.html").write_text(page.render(report), encoding="utf-8")
    (folder / "model_card.md").write_text(model_card.render(report), encoding="utf-8")
    (folder / "report.json").write_text(dumps(report), encoding="utf-8")


def dumps(report: dict[str, Any]) -> str:
    """The report as indented JSON, with lists of numbers on one line."""
    text = json.dumps(report, indent=2, allow_nan=False)
    return re.sub(r"\[[\s0-9.,eE+-]*\]", lambda found: " ".join(found[0].split()), text) + "\n"
