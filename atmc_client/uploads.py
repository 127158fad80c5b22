"""What is told of files and ids without asking the service."""

import hashlib
from pathlib import Path


def is_id(given: str | Path) -> bool:
    """Whether it names something uploaded rather than a file: there is no such file."""
    return str(given).startswith(("mdl_", "dst_")) and not Path(given).exists()


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of the file's content, in hex; raises OSError."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
