"""A finished job's figures held against the thresholds of its own spec."""

from typing import Literal

from pydantic import BaseModel, Field

from api.jobs.headline import Headline
from jobstore.tables import Document

# Differences of shares that are equal but for rounding; images are counted in millions at most.
_PLACES = 9


class Threshold(BaseModel):
    """One threshold, and whether the job's figure meets it."""

    name: str = Field(examples=["robust_accuracy"])
    bound: Literal["at_least", "at_most"]
    limit: float
    figure: float
    passed: bool


def acceptance(spec: Document, headline: Headline | None) -> list[Threshold] | None:
    """Return the spec's thresholds, each with its verdict; None without thresholds or figures.

    The report says the same with intervals.
    """
    accept = spec.get("accept")
    if headline is None or not accept:
        return None
    found = [
        Threshold(
            name=name,
            bound=bound,
            limit=accept[name],
            figure=figure,
            passed=figure >= accept[name] if bound == "at_least" else figure <= accept[name],
        )
        for name, (bound, figure) in _figures(headline).items()
        if accept.get(name) is not None and figure is not None
    ]
    return found or None


def _figures(headline: Headline) -> dict[str, tuple[Literal["at_least", "at_most"], float | None]]:
    robust = headline.robust_accuracy_after
    if robust is None:
        robust = headline.robust_accuracy_before
    drop = None
    if headline.clean_accuracy_before is not None and headline.clean_accuracy_after is not None:
        drop = round(headline.clean_accuracy_before - headline.clean_accuracy_after, _PLACES)
    return {
        "robust_accuracy": ("at_least", robust),
        "clean_accuracy_drop": ("at_most", drop),
        "file_ratio": ("at_most", headline.file_ratio),
    }
