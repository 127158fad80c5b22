"""What waits, as in `aio/waits.py`; without an event loop there is no thread to spare it."""

from collections.abc import Callable
from time import sleep
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

__all__ = ["in_thread", "sleep"]


def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what the function returns."""
    return function(*args, **kwargs)
