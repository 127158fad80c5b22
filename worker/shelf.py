"""The child's side of the products that jobs share: files in its folder, which a supervisor serves.

The child imports this module, so this module imports nothing of `jobstore`.
"""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from atmc_core.job.products import Found
from worker.folder import write_json

_POLL_S = 0.05


class FolderShelf:
    """Asks the supervisor by `KEY.ask`, and finds its answer in `KEY.answer`."""

    def __init__(self, folder: Path, job_id: str, files: Mapping[str, str]) -> None:
        """`folder` is the run folder's part for products; the others are as in `Shelf`."""
        self.job_id, self.files = job_id, files
        self._folder = folder
        self._asked: dict[str, int] = {}

    def take(
        self, key: str, stage: str, *, told: Callable[[str], None], patient: bool
    ) -> Found | None:
        """See `Shelf`."""
        number = self._ask(key, stage, refused=False)
        waits = False
        while True:
            match self._answer(key, number):
                case {"answer": "take", "job_id": str(job_id), "seconds": float(seconds)}:
                    return Found(self._folder / f"{key}.taken", job_id, seconds)
                case {"answer": "make"}:
                    return None
                case {"answer": "wait", "job_id": str(job_id)}:
                    if not patient:
                        return None
                    if not waits:
                        told(job_id)
                    waits = True
            time.sleep(_POLL_S)

    def refuse(self, key: str, stage: str) -> None:
        """See `Shelf`."""
        self._ask(key, stage, refused=True)

    def put(self, key: str, stage: str, seconds: float, write: Callable[[Path], None]) -> None:
        """See `Shelf`."""
        write_json(self._folder / f"{key}.about", {"stage": stage, "seconds": seconds})
        aside = self._folder / f"{key}.writing"
        write(aside)
        aside.rename(self._folder / f"{key}.made")

    def _ask(self, key: str, stage: str, *, refused: bool) -> int:
        number = self._asked[key] = self._asked.get(key, -1) + 1
        ask = {"n": number, "stage": stage, "refused": refused}
        write_json(self._folder / f"{key}.ask", ask)
        return number

    def _answer(self, key: str, number: int) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = json.loads((self._folder / f"{key}.answer").read_text())
        except FileNotFoundError:
            return {}
        return answer if answer["n"] == number else {}
