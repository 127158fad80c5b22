"""What waits, and what another thread does meanwhile; `sync/waits.py` is its twin."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from anyio import sleep, to_thread

P = ParamSpec("P")
T = TypeVar("T")

__all__ = ["in_thread", "sleep"]


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what the function returns; the event loop goes on while it works."""
    return await to_thread.run_sync(lambda: function(*args, **kwargs))
