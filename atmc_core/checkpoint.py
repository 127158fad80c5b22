"""Checkpoints in a folder: written aside and renamed, so a reader sees whole ones only."""

import os
import pickle
from pathlib import Path
from typing import Any

import torch

#: The one before the newest is kept in case the newest cannot be read.
_KEPT = 2


class CheckpointFolder:
    """Numbered files ``NNNNNN.pt`` of tensors and plain values, the newest two."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def paths(self) -> list[Path]:
        """The checkpoints there are, oldest first."""
        return sorted(self.folder.glob("[0-9]*.pt"))

    def save(self, state: dict[str, Any]) -> Path:
        """Write ``state`` as the newest checkpoint, on disk before it gets its name."""
        paths = self.paths()
        number = int(paths[-1].stem) + 1 if paths else 1
        path = self.folder / f"{number:06d}.pt"
        aside = path.with_suffix(".tmp")
        with aside.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(path)
        for old in self.paths()[:-_KEPT]:
            old.unlink(missing_ok=True)
        return path

    def load(self) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest checkpoint that can be read, and the names of the ones that could not.

        Only tensors and plain values are unpickled.
        """
        broken: list[str] = []
        for path in reversed(self.paths()):
            try:
                return torch.load(path, map_location="cpu", weights_only=True), broken
            except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
                broken.append(f"{path.name}: {error}")
        return None, broken
