"""The fixtures of `tests.bench`."""

from tests.bench import (  # noqa: F401
    _poll,
    bench,
    broker,
    column,
    settings,
    start,
    store,
)
