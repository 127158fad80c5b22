"""The files that a report consists of."""

import json
import re
from pathlib import Path
from typing import Any


def write(report: dict[str, Any], folder: Path) -> None:
    """Write ``report.json`` into ``folder``."""
    (folder / "report.json").write_text(dumps(report))


def dumps(report: dict[str, Any]) -> str:
    """Indented JSON in which lists of numbers keep to one line."""
    text = json.dumps(report, indent=2, allow_nan=False)
    return re.sub(r"\[[\s0-9.,eE+-]*\]", lambda found: " ".join(found[0].split()), text) + "\n"
