"""The headers of the tus 1.0 protocol (https://tus.io/protocols/resumable-upload)."""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import format_datetime
from typing import Any

from api.problems import Problem
from api.text import clip
from jobstore.tables import IncomingUpload

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,expiration,checksum,termination"
ALGORITHMS = ("sha256", "sha1", "md5")
CONTENT_TYPE = "application/offset+octet-stream"

_MAX_METADATA = 4096
_MOST = 2**63 - 1


def check_version(headers: Mapping[str, str]) -> None:
    """Raise `unknown_tus_version` unless the client speaks ours."""
    if headers.get("Tus-Resumable") != VERSION:
        raise Problem(
            "unknown_tus_version",
            f"Send the header 'Tus-Resumable: {VERSION}'.",
            "Tus-Resumable",
            headers={"Tus-Version": VERSION, "Tus-Resumable": VERSION},
        )


def check_content_type(headers: Mapping[str, str]) -> None:
    """Raise `unsupported_media_type` for a body that is not a piece of an upload."""
    if headers.get("Content-Type") != CONTENT_TYPE:
        raise Problem("unsupported_media_type", f"Send {CONTENT_TYPE} here.", "Content-Type")


def number(headers: Mapping[str, str], name: str) -> int:
    """Return a count of bytes; raises `missing_field`, `invalid_value`."""
    text = headers.get(name)
    if text is None:
        raise Problem("missing_field", f"The header {name!r} is missing.", name)
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= _MOST):
        raise Problem("invalid_value", f"{name!r} must be a number of bytes.", name)
    return int(text)


def filename(metadata: str) -> str:
    """Return the `filename` of an Upload-Metadata header, "" without one.

    Raises `invalid_value` for a header that the protocol does not allow.
    """
    pairs = [pair.strip().split(" ") for pair in metadata.split(",")] if metadata else []
    names = [pair[0] for pair in pairs]
    try:
        if len(metadata) > _MAX_METADATA or not metadata.isascii() or len(set(names)) < len(names):
            raise ValueError
        values = {
            name: base64.b64decode("".join(value), validate=True) for name, *value in pairs if name
        }
        if len(values) < len(pairs) or any(len(pair) > 2 for pair in pairs):
            raise ValueError
    except (ValueError, binascii.Error) as error:
        detail = "'Upload-Metadata' must be pairs 'name base64', divided by commas."
        raise Problem("invalid_value", detail, "Upload-Metadata") from error
    return clip(values.get("filename", b"").decode(errors="replace").replace("\0", ""), 255)


@dataclass(frozen=True)
class Checksum:
    """The digest that the body of a request must have."""

    algorithm: str
    digest: bytes

    def new(self) -> Any:
        """Return a hash of the algorithm, to feed the body to."""
        return hashlib.new(self.algorithm, usedforsecurity=False)


def checksum(headers: Mapping[str, str]) -> Checksum | None:
    """Return the body's checksum, None without one; raises `unknown_checksum`, `invalid_value`."""
    text = headers.get("Upload-Checksum")
    if text is None:
        return None
    algorithm, _, encoded = text.partition(" ")
    if algorithm not in ALGORITHMS:
        detail = f"The checksum's algorithm must be one of {', '.join(ALGORITHMS)}."
        raise Problem("unknown_checksum", detail, "Upload-Checksum")
    try:
        return Checksum(algorithm, base64.b64decode(encoded, validate=True))
    except (ValueError, binascii.Error) as error:
        detail = "The checksum must be base64 after the algorithm and a space."
        raise Problem("invalid_value", detail, "Upload-Checksum") from error


def headers_of(upload: IncomingUpload, received: int | None = None) -> dict[str, str]:
    """Return the headers that tell a client how an upload stands."""
    return {
        "Tus-Resumable": VERSION,
        "Upload-Offset": str(upload.received if received is None else received),
        "Upload-Expires": format_datetime(upload.expires_at, usegmt=True),
        "Cache-Control": "no-store",
    }
