"""Progress of what has no epochs: images read, files written."""

import time
from collections.abc import Callable

from atmc_core.events import Emit

#: Seconds between two events, at least.
_PAUSE_S = 2.0


def count(emit: Emit, stage: str, done: int, of: int, *, progress: float) -> None:
    """Say that ``done`` of ``of`` are done, in the fields that elsewhere count epochs.

    Args:
        progress: the share of the whole job that is done, 0 to 1.
    """
    figures = {"epoch": done, "epochs": of, "progress": progress, "eta_s": None}
    emit({"type": "progress", "stage": stage} | figures)


def now_and_then(emit: Emit, stage: str) -> Callable[[int, int], None]:
    """A function that counts at the beginning of a job; called often, it still says little."""
    last = time.monotonic()

    def told(done: int, of: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _PAUSE_S:
            last = time.monotonic()
            count(emit, stage, done, of, progress=0.0)

    return told
