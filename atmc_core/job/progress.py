"""Progress events of work that has no epochs: reading images and writing results."""

import time
from collections.abc import Callable

from atmc_core.events import Emit

#: The least time between two events, in seconds.
_PAUSE_S = 2.0


def emit_progress(emit: Emit, stage: str, done: int, of: int, *, progress: float) -> None:
    """Emit that ``done`` things of ``of`` are done, in the event's fields for epochs.

    Args:
        stage: the name of the stage.
        progress: the share of the whole job that is done, 0 to 1.
    """
    figures = {"epoch": done, "epochs": of, "progress": progress, "eta_s": None}
    emit({"type": "progress", "stage": stage} | figures)


def throttled_progress(emit: Emit, stage: str) -> Callable[[int, int], None]:
    """A function of ``done`` and ``of`` that emits progress at most every two seconds.

    It serves the beginning of a job, whose share of the whole is taken as zero.
    """
    last = time.monotonic()

    def update(done: int, of: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _PAUSE_S:
            last = time.monotonic()
            emit_progress(emit, stage, done, of, progress=0.0)

    return update
