"""The thresholds that a caller sets for a job's result, and when a figure meets one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from atmc_spec.base import SpecModel
from atmc_spec.values import Number

Bound = Literal["at_least", "at_most"]

#: Decimal places to which a figure is compared with its limit: enough for shares of millions of
#: images, and too few for errors of rounding to count.
_DECIMALS = 9
_BOUNDS: dict[str, Bound] = {
    "robust_accuracy": "at_least",
    "proven_accuracy": "at_least",
    "clean_accuracy_drop": "at_most",
    "file_ratio": "at_most",
}


@dataclass(frozen=True)
class Threshold:
    """One threshold of ``accept``.

    Attributes:
        name: the name of its field in ``accept``.
        bound: whether the figure must be at least the limit, or at most.
        limit: the limit, which itself meets the threshold.
    """

    name: str
    bound: Bound
    limit: float

    def is_met(self, figure: float) -> bool:
        """Whether a figure meets the threshold."""
        beyond = round(figure - self.limit, _DECIMALS)
        return beyond >= 0 if self.bound == "at_least" else beyond <= 0


class Accept(SpecModel):
    """Thresholds that the result is held against; a job that misses one has not failed.

    All but ``upload_accuracy``, to which the upload is held: a job that misses that one fails at
    its beginning.
    """

    robust_accuracy: Annotated[
        Number | None,
        Field(ge=0, le=1, description="the least robust accuracy of the result"),
    ] = None
    proven_accuracy: Annotated[
        Number | None,
        Field(ge=0, le=1, description="the least proven accuracy of the result"),
    ] = None
    clean_accuracy_drop: Annotated[
        Number | None, Field(ge=0, le=1, description="the most clean accuracy that may be lost")
    ] = None
    file_ratio: Annotated[
        Number | None, Field(gt=0, le=1, description="the largest share of the dense file's bytes")
    ] = None
    upload_accuracy: Annotated[
        Number | None,
        Field(
            ge=0,
            le=1,
            description="the least clean accuracy of the upload, on up to 1,000 training and "
            "validation images: below it the job fails before it trains",
        ),
    ] = None

    def thresholds(self) -> list[Threshold]:
        """The thresholds for the result that are given."""
        return read_thresholds(self.to_json())


def read_thresholds(accept: Mapping[str, Any]) -> list[Threshold]:
    """The thresholds that are given in an ``accept``.

    Args:
        accept: the part of a spec as JSON; it may come from another version's spec.
    """
    return [
        Threshold(name, bound, accept[name])
        for name, bound in _BOUNDS.items()
        if accept.get(name) is not None
    ]
