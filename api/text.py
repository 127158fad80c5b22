"""Text from outside: what may stand in it, and how it is shown again in a message."""

from typing import Annotated

from fastapi import Path

from atmc_spec import clip, shown

__all__ = ["WITHOUT_NUL", "PathText", "clip", "shown"]

# PostgreSQL takes every text but one with a NUL in it.
WITHOUT_NUL = r"^[^\x00]*$"

PathText = Annotated[str, Path(min_length=1, max_length=255, pattern=WITHOUT_NUL)]
