"""Opaque cursors of lists that are ordered by id."""

import base64
import binascii
import re

from jobstore.errors import InvalidCursor


def encode_cursor(id: str) -> str:
    """Return the cursor of what comes after `id`."""
    return base64.urlsafe_b64encode(id.encode()).decode()


def decode_cursor(cursor: str, prefix: str) -> str:
    """Return the id, which begins with `prefix` ("job_"); raises `InvalidCursor`."""
    try:
        id = base64.b64decode(cursor, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        id = ""
    # Only such an id reaches the database; PostgreSQL, for one, fails on a text with a NUL in it.
    if re.fullmatch(f"{prefix}[0-9a-f]{{32}}", id) is None:
        raise InvalidCursor(f"not a cursor of this service: {cursor!r}")
    return id
