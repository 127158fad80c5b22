"""The thresholds that a result is held against, and when one is met."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from atmc_spec.base import SpecModel
from atmc_spec.values import Number

Bound = Literal["at_least", "at_most"]

#: Differences of shares that are equal but for rounding; images are counted in millions at most.
_PLACES = 9
_BOUNDS: dict[str, Bound] = {
    "robust_accuracy": "at_least",
    "clean_accuracy_drop": "at_most",
    "file_ratio": "at_most",
}


@dataclass(frozen=True)
class Threshold:
    """One threshold, by the name that it has in ``accept``."""

    name: str
    bound: Bound
    limit: float

    def is_met(self, figure: float) -> bool:
        """Whether a figure keeps to it; the limit itself does."""
        beyond = round(figure - self.limit, _PLACES)
        return beyond >= 0 if self.bound == "at_least" else beyond <= 0


class Accept(SpecModel):
    """Thresholds that the result is held against; a job that misses one has not failed."""

    robust_accuracy: Annotated[
        Number | None,
        Field(ge=0, le=1, description="the least robust accuracy of the result"),
    ] = None
    clean_accuracy_drop: Annotated[
        Number | None, Field(ge=0, le=1, description="the most clean accuracy that may be lost")
    ] = None
    file_ratio: Annotated[
        Number | None, Field(gt=0, le=1, description="the largest share of the dense file's bytes")
    ] = None

    def thresholds(self) -> list[Threshold]:
        """Those that are given."""
        return read_thresholds(self.to_json())


def read_thresholds(accept: Mapping[str, Any]) -> list[Threshold]:
    """Those that are given in an ``accept`` as JSON, which may be of another version's spec."""
    return [
        Threshold(name, bound, accept[name])
        for name, bound in _BOUNDS.items()
        if accept.get(name) is not None
    ]
