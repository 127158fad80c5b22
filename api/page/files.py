"""The files that the page is made of, read once, with the headers that a browser keeps them by."""

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

ENTRY = "index.html"
_KINDS = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True)
class File:
    """A file as it is sent: its bytes, the same ones packed, and its strong tag."""

    media_type: str
    content: bytes
    packed: bytes
    tag: str


@dataclass(frozen=True)
class Site:
    """All files by their path, and one digest of them all.

    The digest is part of every file's address, so a browser may keep a file for ever, and a new
    release never mixes with an old one's files.
    """

    files: dict[str, File]
    digest: str


@cache
def site() -> Site:
    """Return the page's files as the package has them."""
    found = dict(sorted(_read(resources.files("api.page") / "static", "")))
    digest = hashlib.sha256()
    for path, content in found.items():
        digest.update(f"{path}\0{len(content)}\0".encode() + content)
    short = digest.hexdigest()[:16]
    entry = found[ENTRY].replace(b"{files}", f"page/{short}".encode())
    return Site(
        {path: _file(path, content) for path, content in (found | {ENTRY: entry}).items()}, short
    )


def _read(folder: Traversable, prefix: str) -> list[tuple[str, bytes]]:
    found = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _read(entry, f"{prefix}{entry.name}/")
        elif any(entry.name.endswith(kind) for kind in _KINDS):
            found.append((prefix + entry.name, entry.read_bytes()))
    return found


def _file(path: str, content: bytes) -> File:
    media_type = _KINDS[path[path.rindex(".") :]]
    # Without a time in it, so that the same bytes are packed alike.
    packed = gzip.compress(content, 9, mtime=0)
    return File(media_type, content, packed, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
