"""What an event loop has of its own: its limits, above all, which no other loop may wait for."""

from collections.abc import Callable
from typing import TypeVar

from anyio.lowlevel import RunVar

V = TypeVar("V")


def of_loop(variable: RunVar[V], make: Callable[[], V]) -> V:
    """Return the running event loop's own value, made when it is first asked for."""
    try:
        return variable.get()
    except LookupError:
        variable.set(made := make())
        return made
