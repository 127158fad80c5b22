"""Text from outside: what may stand in it, and how it is shown again in a message."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Path
from pydantic import AfterValidator, AwareDatetime

from atmc_spec import clip, shown

__all__ = ["WITHOUT_NUL", "Moment", "PathText", "clip", "shown"]

# PostgreSQL takes every text but one with a NUL in it.
WITHOUT_NUL = r"^[^\x00]*$"

PathText = Annotated[str, Path(min_length=1, max_length=255, pattern=WITHOUT_NUL)]


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("it lies outside the years 1 to 9999 in UTC") from error


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A moment with its zone, in UTC."""
