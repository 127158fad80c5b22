"""What is told of files and ids without asking the service, and which uploads have begun."""

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

LARGE_BYTES = 8 << 20
"""From this size on a file is sent in pieces, and its upload can be gone on with."""

PIECE_BYTES = 4 << 20

OnBytes = Callable[[str, int, int], None]
"""Is called with a file's name, its bytes that have come through, and its bytes in all."""


def is_id(given: str | Path) -> bool:
    """Whether it names something uploaded rather than a file: there is no such file."""
    return str(given).startswith(("mdl_", "dst_")) and not Path(given).exists()


def is_large(path: Path) -> bool:
    """Whether the file is sent in pieces; raises OSError."""
    return path.stat().st_size >= LARGE_BYTES


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of the file's content, in hex; raises OSError."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def piece_of(file: BinaryIO, offset: int) -> bytes:
    """Return the file's piece from `offset` on; raises OSError."""
    file.seek(offset)
    return file.read(PIECE_BYTES)


@dataclass(frozen=True)
class BegunUpload:
    """The id of an upload of a file to a service, kept where a later process finds it.

    It lies in `$XDG_STATE_HOME/atmc/uploads` (`~/.local/state`). To whom the key belongs does not
    matter: the service has no such upload for anybody else.
    """

    url: str
    sha256: str

    @property
    def path(self) -> Path:
        """Where it is kept."""
        home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        name = hashlib.sha256(f"{self.url} {self.sha256}".encode()).hexdigest()
        return Path(home, "atmc", "uploads", name)

    def read(self) -> str | None:
        """The upload's id, if one has begun."""
        try:
            text = self.path.read_text("ascii")
        except (OSError, ValueError):
            return None
        return text if re.fullmatch(r"upl_\w+", text) else None

    def write(self, upload_id: str) -> None:
        """Keep the id; raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(upload_id, "ascii")

    def forget(self) -> None:
        """Keep it no longer."""
        self.path.unlink(missing_ok=True)
