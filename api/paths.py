"""Types of what stands in a path."""

from typing import Annotated

from fastapi import Path

# PostgreSQL takes every text but one with a NUL in it.
PathText = Annotated[str, Path(pattern=r"^[^\x00]+$", max_length=255)]
