"""Checkpoints in a folder.

Each is written under another name and then renamed, so a reader only ever sees whole ones. The name
holds the content's hash, so a resuming job notices damage by a disk or a transfer.
"""

import hashlib
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

#: The version of the checkpoints' layout. A checkpoint of another layout would be misread, so it
#: counts as broken, and its job begins anew. The number is raised whenever a stage or a solver
#: changes what it keeps. (2: one tensor for all factors; 3: only the basis of U and V; 4: the same
#: in what stages hand on; 5: stages hand on a ``Handover``, and there is one optimiser;
#: 6: evaluations keep whether there is anything to smooth, and that attack's outcome; 7: and what
#: is proven; 9: a ``Handover`` says what was taken from other jobs.)
FORMAT = 9
#: How many checkpoints are kept: the newest, and one more in case the newest cannot be read.
_KEPT = 2
#: A large network's checkpoint takes seconds, and an epoch may take less. If a checkpoint took more
#: than QUICK_S seconds, the next one waits until the job has worked WORTH times as long.
QUICK_S = 0.25
WORTH = 9


class BrokenCheckpoint(Exception):
    """A checkpoint is damaged, or of another layout."""


class CheckpointFolder:
    """A folder of the newest two checkpoints, files ``NNNNNN-SHA256.pt`` with ascending numbers.

    Args:
        folder: is made if it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._due = -float("inf")
        folder.mkdir(parents=True, exist_ok=True)

    def paths(self) -> list[Path]:
        """The files of the checkpoints, oldest first."""
        return sorted(self.folder.glob("[0-9]*.pt"))

    def save(self, state: dict[str, Any]) -> Path:
        """Write the newest checkpoint and delete all but the newest two.

        The content is flushed to disk before the file gets its name.

        Args:
            state: tensors and plain values by name.

        Returns:
            The path of the file.
        """
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
        """Save a checkpoint, unless saving would take too large a share of the job's time.

        Args:
            state: makes the state to save; only called if it is saved.
        """
        began = time.monotonic()
        if began < self._due:
            return
        self.save(state())
        ended = time.monotonic()
        cost = ended - began
        self._due = ended + (WORTH * cost if cost > QUICK_S else 0)

    def load(self) -> tuple[dict[str, Any] | None, list[str]]:
        """Read the newest checkpoint that can be read; only tensors and plain values are unpickled.

        Returns:
            Its state, on the CPU, or None if there is none; and for each newer checkpoint that
            could not be read a sentence that names it and says why.
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
    """The state without its format number, once that is found to be this release's."""
    found = state.pop("format", 1) if isinstance(state, dict) else "none"
    if not isinstance(state, dict) or found != FORMAT:
        raise BrokenCheckpoint(f"its format is {found}, this release reads {FORMAT}")
    return state


def _check(path: Path) -> None:
    """Check that the content has the hash that the file's name says."""
    expected = path.stem.partition("-")[2]
    # Names have no hash in files that early versions wrote, which an upgrade keeps.
    if not expected:
        return
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != expected:
            raise BrokenCheckpoint("its content has another hash than its name")
