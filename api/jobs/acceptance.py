"""A finished job's figures held against the thresholds of its own spec."""

from typing import Literal

from pydantic import BaseModel, Field

from jobstore.tables import Job

# Differences of shares that are equal but for rounding; images are counted in millions at most.
_PLACES = 9


class Threshold(BaseModel):
    """One threshold, and whether the job's figure meets it."""

    name: str = Field(examples=["robust_accuracy"])
    bound: Literal["at_least", "at_most"]
    limit: float
    figure: float
    passed: bool


def acceptance(job: Job) -> list[Threshold] | None:
    """Each threshold with its verdict; None before the job has succeeded, or without thresholds.

    The report says the same with intervals.
    """
    accept = job.spec.get("accept")
    if job.headline is None or not accept:
        return None
    found = [
        Threshold(
            name=name,
            bound=bound,
            limit=accept[name],
            figure=figure,
            passed=figure >= accept[name] if bound == "at_least" else figure <= accept[name],
        )
        for name, (bound, figure) in _figures(job).items()
        if accept.get(name) is not None and figure is not None
    ]
    return found or None


def _figures(job: Job) -> dict[str, tuple[Literal["at_least", "at_most"], float | None]]:
    robust = job.robust_accuracy_after
    if robust is None:
        robust = job.robust_accuracy_before
    drop = None
    if job.clean_accuracy_before is not None and job.clean_accuracy_after is not None:
        drop = round(job.clean_accuracy_before - job.clean_accuracy_after, _PLACES)
    return {
        "robust_accuracy": ("at_least", robust),
        "clean_accuracy_drop": ("at_most", drop),
        "file_ratio": ("at_most", job.file_ratio),
    }
