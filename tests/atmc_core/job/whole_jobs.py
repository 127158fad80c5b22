"""Runs whole jobs in this process on real digits."""

import json
from pathlib import Path
from typing import Any

import torch

from atmc_core.job.denser import DenserInput
from atmc_core.job.products import Shelf
from atmc_core.job.run import run
from atmc_core.networks.upload import ModelInput
from atmc_spec import read_spec

Report = dict[str, Any]
EVALUATION = {
    "level": "standard",
    "max_images": 80,
    "pgd_steps": 4,
    "autoattack_steps": 6,
    "square_queries": 40,
    "curve_steps": 3,
    "batch_size": 40,
    "speed": False,
}
THREAT = {"norm": "linf", "epsilon": "25/255"}


class Killed(Exception):
    """Stands for the end of the process at this very event."""


def run_job(
    document: dict[str, Any],
    model: ModelInput,
    data: Path,
    folder: Path,
    kill: int = 0,
    denser: DenserInput | None = None,
    shelf: Shelf | None = None,
) -> Any:
    """The headline and the events; ended by ``Killed`` at progress event number ``kill``."""
    events: list[dict[str, Any]] = []

    def emit(event: dict[str, Any]) -> None:
        events.append(event)
        if kill and sum(each["type"] == "progress" for each in events) == kill:
            raise Killed

    spec = read_spec(document)
    device = torch.device("cpu")
    headline = run(spec, model, data, folder, device=device, emit=emit, denser=denser, shelf=shelf)
    return headline, events


def read_report(folder: Path) -> Report:
    report: Report = json.loads((folder / "results" / "report.json").read_text())
    return report
