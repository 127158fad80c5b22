"""Text from outside: what may stand in it, and how it is shown again in a message."""

from typing import Annotated, Any

from fastapi import Path

# PostgreSQL takes every text but one with a NUL in it.
WITHOUT_NUL = r"^[^\x00]*$"

PathText = Annotated[str, Path(min_length=1, max_length=255, pattern=WITHOUT_NUL)]


def clip(text: str, width: int = 80) -> str:
    """Make a text that others chose fit for a message: short, and possible to send as UTF-8."""
    shown = text if len(text) <= width else f"{text[:width]}…"
    return shown.encode(errors="backslashreplace").decode()


def shown(value: Any) -> str:
    """Show a value that others chose as Python writes it, cut short."""
    return clip(repr(value))
