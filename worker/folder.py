"""The run folder, which has a child's inputs and results (docs/interfaces/job-folder.md).

The child imports this module, so this module imports nothing of `jobstore`.
"""

import fcntl
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

REPORT = "report.json"
"""The name of the result that every method has; others depend on the method."""

ATTESTATION = "attestation.dsse.json"
"""The name of the signed statement on the results (`worker.signing`), which no child may write."""

_MEDIA_TYPES: Mapping[str, str] = {
    ".json": "application/json",
    ".html": "text/html; charset=utf-8",
    ".md": "text/markdown; charset=utf-8",
    ".c": "text/x-c; charset=utf-8",
}
# The names of results are used in URLs.
_RESULT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

_LOCK = "lock"
_LOG_TAIL_BYTES = 4000


@dataclass(frozen=True)
class RunFolder:
    """The paths in one run's folder."""

    path: Path

    @property
    def job(self) -> Path:
        return self.path / "job.json"

    @property
    def inputs(self) -> Path:
        return self.path / "inputs"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def results(self) -> Path:
        return self.path / "results"

    @property
    def outcome(self) -> Path:
        return self.path / "outcome.json"

    @property
    def crash(self) -> Path:
        """The child's reason for its crash, which it writes instead of an outcome."""
        return self.path / "crash.json"

    @property
    def attestation(self) -> Path:
        """The supervisor's signed statement on the results, once the child has ended."""
        return self.path / ATTESTATION

    @property
    def log(self) -> Path:
        """The child's output, for the supervisor; not part of the documented protocol."""
        return self.path / "child.log"

    @property
    def products(self) -> Path:
        """What stages make, to be shared with other jobs, and what others made."""
        return self.path / "products"

    @property
    def temporary(self) -> Path:
        """The child's folder for temporary files, and its home."""
        return self.path / "tmp"

    def newest_checkpoint(self) -> Path | None:
        """Return the checkpoint with the highest number, if there is one."""
        return max(self.checkpoints.glob("*.pt"), default=None)

    def crash_document(self) -> object:
        """Return the child's reason for its crash, or None if there is none that can be read."""
        try:
            return json.loads(self.crash.read_text())
        except (OSError, ValueError):
            return None

    def log_tail(self) -> str:
        """Return the end of the child's output."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            file.seek(-min(_LOG_TAIL_BYTES, file.seek(0, os.SEEK_END)), os.SEEK_END)
            return file.read().decode(errors="replace").strip()


@contextmanager
def run_folder(runs: Path, name: str) -> Iterator[RunFolder]:
    """Make an empty run folder in `runs` for the duration of the context, and then delete it.

    A lock on the folder tells `remove_abandoned` that its supervisor is alive.
    """
    folder = RunFolder(runs / name)
    with ExitStack() as stack:
        with _lock(runs / _LOCK):
            parts = (folder.inputs, folder.checkpoints, folder.results, folder.products)
            for each in (*parts, folder.temporary):
                each.mkdir(parents=True)
            stack.enter_context(_lock(folder.path / _LOCK))
        stack.callback(shutil.rmtree, folder.path)
        yield folder


def remove_abandoned(runs: Path) -> None:
    """Delete the run folders of supervisors on this machine that were killed."""
    with _lock(runs / _LOCK):
        for path in runs.iterdir():
            if not path.is_dir():
                continue
            try:
                with _lock(path / _LOCK, wait=False):
                    shutil.rmtree(path)
            except BlockingIOError:
                continue
            log.info("removed an abandoned run folder", extra={"path": path})


@contextmanager
def _lock(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock on a file, at most as long as this process lives.

    Raises BlockingIOError if `wait` is false and another process holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def is_result(path: Path) -> bool:
    """Tell whether a child may leave this in `results`: a plain file whose name fits a URL."""
    plain = path.is_file() and not path.is_symlink() and path.name != ATTESTATION
    return plain and _RESULT_NAME.fullmatch(path.name) is not None


def media_type(name: str) -> str:
    """Return the media type of a result by the suffix of its name; bytes if it is not known."""
    return _MEDIA_TYPES.get(Path(name).suffix, "application/octet-stream")


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a document in such a way that a reader sees all of it or nothing.

    Raises ValueError for NaN and infinities.
    """
    # Several processes of a job may write an outcome, so each writes to a name of its own first.
    aside = path.with_suffix(f".{os.getpid()}.tmp")
    aside.write_text(json.dumps(document, allow_nan=False))
    aside.rename(path)
