"""The paper's table as a file: the finished rows, the settings they were made with, a figure."""

import argparse
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import hardware
from benchmarks.timing import say

RESULTS = Path(__file__).resolve().parent / "results"
#: The methods, in the order of the paper's figure.
METHODS = ("da", "nap", "ap", "al0", "alr", "atmc")
# The options that choose rows and files and have no effect on the figures of a row.
_CHOICES = (
    "methods",
    "densities",
    "nominal_ratios",
    "max_bytes",
    "bits",
    "draw",
    "work",
    "threads",
    "dataset",
    "name",
)


def work_folder(arguments: argparse.Namespace) -> Path:
    """The folder of the data, networks and finished rows of a table."""
    return Path(arguments.work) / f"{arguments.dataset}-{arguments.name}"


def rows(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """All finished rows: those of the work folder, and those of the file if the settings agree."""
    found = [json.loads(path.read_text()) for path in work_folder(arguments).glob("*/row.json")]
    path = table_path(arguments)
    if path.exists():
        table = json.loads(path.read_text())
        if arguments.draw or table["settings"] == _settings(arguments):
            found += table["rows"]
    named = {row["name"]: row for row in found}
    return sorted(
        named.values(),
        key=lambda row: (METHODS.index(row["method"]), -row["nominal_ratio"], -row["bits"]),
    )


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings on which every row depends."""
    settings = {name: value for name, value in vars(arguments).items() if name not in _CHOICES}
    if arguments.robust:
        settings["robust"] = hashlib.sha256(arguments.robust.read_bytes()).hexdigest()
    return settings


def table_path(arguments: argparse.Namespace) -> Path:
    """The table's file."""
    return RESULTS / f"{arguments.dataset}-{arguments.name}.json"


def write(arguments: argparse.Namespace) -> dict[str, Any]:
    """Write the table so far and its figure; returns the table."""
    path = table_path(arguments)
    if arguments.draw:
        table: dict[str, Any] = json.loads(path.read_text())
    else:
        table = {
            "dataset": arguments.dataset,
            "settings": _settings(arguments),
            "torch": torch.__version__,
            "hardware": hardware(),
            "threads": arguments.threads,
            "rows": rows(arguments),
        }
        RESULTS.mkdir(exist_ok=True)
        aside = path.with_suffix(f".{os.getpid()}")
        aside.write_text(json.dumps(table, indent=1) + "\n")
        aside.rename(path)
    _draw(table, path.with_suffix(".svg"))
    return table


def _draw(table: dict[str, Any], path: Path) -> None:
    try:
        from benchmarks.figure import draw
    except ImportError as error:
        say(f"no figure: {error}; it is drawn where matplotlib is installed")
        return
    draw(table, path)
