"""What may be asked for, as JSON: the worker publishes it, so that the API needs no PyTorch."""

from dataclasses import dataclass
from typing import Annotated, Any

from atmc_core.architectures import ARCHITECTURES
from atmc_core.config import Evaluation, Threat, spec_schema
from atmc_core.methods import METHODS
from atmc_core.schema import json_schema


@dataclass(frozen=True)
class FgsmOptions:
    """FGSM has none: one step of the threat's radius from the image itself."""


@dataclass(frozen=True)
class PgdOptions:
    """Where the report's PGD is configured in a job spec."""

    evaluation: Annotated[Evaluation, "steps and restarts in the report"]
    threat: Annotated[Threat, "the ball"]


ATTACKS = {
    "fgsm": ("One signed (or normalised) gradient step (Goodfellow et al., 2015)", FgsmOptions),
    "pgd": (
        (
            "Projected gradient ascent with random starts (Madry et al., 2018); "
            "the step is 2.5 epsilon / steps in the report"
        ),
        PgdOptions,
    ),
}


@dataclass(frozen=True)
class CatalogueEntry:
    """``kind`` is architecture, method or attack; ``document`` is JSON (see docs/interfaces.md)."""

    kind: str
    name: str
    document: dict[str, Any]


def catalogue() -> list[CatalogueEntry]:
    """Every architecture, method and attack of this version."""
    entries = [
        CatalogueEntry("architecture", name, architecture.describe())
        for name, architecture in ARCHITECTURES.items()
    ]
    for method, system in METHODS.items():
        document = {
            "name": method,
            "description": system.description,
            "spec_schema": spec_schema(method),
        }
        entries.append(CatalogueEntry("method", method, document))
    for name, (description, options) in ATTACKS.items():
        document = {
            "name": name,
            "description": description,
            "options_schema": json_schema(options),
        }
        entries.append(CatalogueEntry("attack", name, document))
    return entries
