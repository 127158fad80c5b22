"""What is told of files, URIs and ids without the service, and which uploads have begun."""

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from atmc_client.types.requests import NewSource

LARGE_BYTES = 8 << 20
"""From this size on a file is sent in pieces, and its upload can be gone on with."""

PIECE_BYTES = 4 << 20

OnBytes = Callable[[str, int, int], None]
"""Is called with a file's name, its bytes that have come through, and its bytes in all."""


Given = str | Path | NewSource
"""A file, an id, or what the service fetches: an `s3://` or `https://` URI, alone or with more."""


def is_id(given: str) -> bool:
    """Whether it names something uploaded rather than a file: there is no such file."""
    return given.startswith(("mdl_", "dst_")) and not Path(given).exists()


def is_uri(given: str) -> bool:
    """Whether it names what the service fetches itself."""
    return given.startswith(("s3://", "https://"))


def told_apart(given: Given) -> Given:
    """Return an id as text, a file as a `Path`, and what the service fetches as a mapping."""
    if not isinstance(given, str):
        return given
    if is_uri(given):
        return {"uri": given}
    return given if is_id(given) else Path(given)


def is_large(file: Given) -> bool:
    """Whether it is a file that is sent in pieces; raises OSError."""
    return isinstance(file, Path) and file.stat().st_size >= LARGE_BYTES


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
