"""Checkpoints in a folder: written aside and renamed, so a reader sees whole ones only.

A checkpoint's name holds its content's hash, so damage by a disk or a transfer is seen on resume.
"""

import hashlib
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

#: The number of the layout of what stages keep. Another release's state would be misread, so it
#: counts as broken, and its job begins anew. The number is raised whenever a stage or a solver
#: keeps something else (2: all factors in one tensor; 3: of U and V only what may be used; 4: the
#: same in what one stage leaves to the next; 5: that is a ``Handover``, and there
#: is one optimiser).
FORMAT = 5
#: The one before the newest is kept in case the newest cannot be read.
_KEPT = 2
#: A large network's checkpoint takes seconds, and an epoch may take less. Where a checkpoint took
#: more than QUICK_S seconds, the next one waits until the job has worked WORTH times as long.
QUICK_S = 0.25
WORTH = 9


class BrokenCheckpoint(Exception):
    """The content has another hash than the name says, or another release wrote it."""


class CheckpointFolder:
    """Numbered files ``NNNNNN-SHA256.pt`` of tensors and plain values, the newest two."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._due = -float("inf")
        folder.mkdir(parents=True, exist_ok=True)

    def paths(self) -> list[Path]:
        """The checkpoints there are, oldest first."""
        return sorted(self.folder.glob("[0-9]*.pt"))

    def save(self, state: dict[str, Any]) -> Path:
        """Write ``state`` as the newest checkpoint, on disk before it gets its name."""
        paths = self.paths()
        number = int(paths[-1].stem.partition("-")[0]) + 1 if paths else 1
        aside = self.folder / f"{number:06d}.tmp"
        with aside.open("w+b") as file:
            torch.save(state | {"format": FORMAT}, file)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        path = self.folder / f"{number:06d}-{digest}.pt"
        aside.rename(path)
        for old in self.paths()[:-_KEPT]:
            old.unlink(missing_ok=True)
        return path

    def save_if_due(self, state: Callable[[], dict[str, Any]]) -> None:
        """Save what ``state`` makes, unless saving would take too large a share of the time."""
        began = time.monotonic()
        if began < self._due:
            return
        self.save(state())
        ended = time.monotonic()
        cost = ended - began
        self._due = ended + (WORTH * cost if cost > QUICK_S else 0)

    def load(self) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest checkpoint that can be read, and the names of the ones that could not.

        Only tensors and plain values are unpickled.
        """
        broken: list[str] = []
        for path in reversed(self.paths()):
            try:
                _check(path)
                state = torch.load(path, map_location="cpu", weights_only=True)
                return _of_this_format(state), broken
            except _UNREADABLE as error:
                broken.append(f"{path.name}: {error}")
        return None, broken


_UNREADABLE = (BrokenCheckpoint, RuntimeError, EOFError, OSError, pickle.UnpicklingError)


def _of_this_format(state: object) -> dict[str, Any]:
    found = state.pop("format", 1) if isinstance(state, dict) else "none"
    if not isinstance(state, dict) or found != FORMAT:
        raise BrokenCheckpoint(f"its format is {found}, this release reads {FORMAT}")
    return state


def _check(path: Path) -> None:
    expected = path.stem.partition("-")[2]
    # Early versions wrote names without a hash; an upgrade keeps their files.
    if not expected:
        return
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != expected:
            raise BrokenCheckpoint("its content has another hash than its name")
