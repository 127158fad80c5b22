"""A finished job's figures held against the thresholds of its own spec."""

from typing import Literal

from pydantic import BaseModel, Field

from api.jobs.headline import Headline
from atmc_spec import read_thresholds
from jobstore.tables import Document

# Beyond these a difference of shares is rounding; images are counted in millions at most.
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
    figures = _figures(headline)
    found = [
        Threshold(
            name=threshold.name,
            bound=threshold.bound,
            limit=threshold.limit,
            figure=figure,
            passed=threshold.is_met(figure),
        )
        for threshold in read_thresholds(accept)
        if (figure := figures[threshold.name]) is not None
    ]
    return found or None


def _figures(headline: Headline) -> dict[str, float | None]:
    after, robust = headline.robust_accuracy_after, headline.robust_accuracy_before
    # Where nothing can be proven, nothing is.
    proven = headline.proven_accuracy_before if after is None else headline.proven_accuracy_after
    drop = None
    if headline.clean_accuracy_before is not None and headline.clean_accuracy_after is not None:
        drop = round(headline.clean_accuracy_before - headline.clean_accuracy_after, _PLACES)
    return {
        "robust_accuracy": robust if after is None else after,
        "proven_accuracy": proven or 0.0,
        "clean_accuracy_drop": drop,
        "file_ratio": headline.file_ratio,
    }
