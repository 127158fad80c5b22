# Written from atmc_client/aio/resumable.py by `make generate`: edit that.
"""Large files, sent in pieces by tus 1.0: what has arrived is not sent again."""

import base64
import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from atmc_client.errors import Conflict, NotFound
from atmc_client.sync.transport import Transport
from atmc_client.sync.waits import in_thread
from atmc_client.types.answers import Upload
from atmc_client.uploads import BegunUpload, OnBytes, piece_of

# Somebody else sends the same upload, or its offsets mean nothing.
CONFLICTS = 5

_TUS = {"Tus-Resumable": "1.0.0"}


def send_pieces(
    transport: Transport, path: Path, begun: BegunUpload, on_bytes: OnBytes | None
) -> str:
    """Send the file; returns the upload's id, of which the service then has every byte.

    What `begun` remembers is gone on with. Raises `ApiError`, `ServerUnreachable` and OSError; what
    had arrived by then stays with the service for some time, and is remembered.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        upload_id, there = _gone_on(transport, begun, size) or _begin(
            transport, path.name, begun, size
        )
        conflicts = 0
        while True:
            if on_bytes is not None:
                on_bytes(path.name, there, size)
            if there >= size:
                return upload_id
            try:
                there = _append(transport, upload_id, file, there)
                conflicts = 0
            except Conflict:
                # A try arrived whose answer was lost, or another process sends the same file.
                conflicts += 1
                if conflicts > CONFLICTS:
                    raise
                there = (_state(transport, upload_id))["received"]


def _gone_on(transport: Transport, begun: BegunUpload, size: int) -> tuple[str, int] | None:
    """The upload that was begun before, and where it stands, if the service still has it."""
    upload_id = begun.read()
    if upload_id is None:
        return None
    try:
        upload = _state(transport, upload_id)
    except NotFound:
        return None
    return (upload_id, upload["received"]) if upload["bytes"] == size else None


def _state(transport: Transport, upload_id: str) -> Upload:
    upload: Upload = transport.get(f"/uploads/{upload_id}")
    return upload


def _begin(transport: Transport, name: str, begun: BegunUpload, size: int) -> tuple[str, int]:
    metadata = f"filename {base64.b64encode(name.encode()).decode()}"
    headers = _TUS | {"Upload-Length": str(size), "Upload-Metadata": metadata}
    with transport.exchange("POST", "/uploads", lambda: {"headers": headers}) as response:
        upload_id = response.headers["Location"].rpartition("/")[2]
    begun.write(upload_id)
    return upload_id, 0


def _append(transport: Transport, upload_id: str, file: BinaryIO, there: int) -> int:
    """Send the piece from there on; returns where the upload then stands. Raises `Conflict`."""
    piece = in_thread(piece_of, file, there)
    # With a checksum a piece is kept whole or not at all, so that it can be sent again as it is.
    checksum = base64.b64encode(hashlib.sha256(piece).digest()).decode()
    headers = _TUS | {
        "Content-Type": "application/offset+octet-stream",
        "Upload-Offset": str(there),
        "Upload-Checksum": f"sha256 {checksum}",
    }
    content = {"headers": headers, "content": piece}
    with transport.exchange("PATCH", f"/uploads/{upload_id}", lambda: content) as response:
        return int(response.headers["Upload-Offset"])
