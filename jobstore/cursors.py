"""Opaque cursors of lists: the row after which the next page begins, and the list's order."""

import base64
import json
import re

from jobstore.errors import InvalidCursor

NEWEST = "-created_at"
"""The order of lists that have no other: by id, newest first."""

_MAX_CURSOR = 4000


def encode_cursor(*values: str, sort: str = NEWEST) -> str:
    """Return the cursor of what comes after these values, of which the id is the last."""
    # The cursor of the usual order is what it was before there were others.
    text = values[-1] if sort == NEWEST else json.dumps([sort, *values])
    return base64.urlsafe_b64encode(text.encode()).decode()


def decode_cursor(cursor: str, prefix: str, sort: str = NEWEST) -> list[str]:
    """Return the values, whose last is an id that begins with `prefix` ("job_").

    Raises `InvalidCursor`, also for the cursor of another order.
    """
    strange = InvalidCursor(f"not a cursor of this service: {cursor[:100]!r}")
    try:
        text = base64.b64decode(cursor[:_MAX_CURSOR], altchars=b"-_", validate=True).decode()
        whose, *values = json.loads(text) if text.startswith("[") else [NEWEST, text]
        # Only such values reach the database; PostgreSQL, for one, fails on a text with a NUL.
        if any("\0" in value.encode().decode() for value in (whose, *values)):
            raise strange
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        raise strange from error
    if not values or re.fullmatch(f"{prefix}[0-9a-f]{{32}}", values[-1]) is None:
        raise strange
    if whose != sort:
        raise InvalidCursor(f"the cursor is of a list sorted by {whose[:20]!r}, this is {sort!r}")
    if len(values) != (2 if sort.endswith("name") else 1):
        raise strange
    return values


def decode_id(cursor: str, prefix: str) -> str:
    """Return the id of a cursor of the usual order; raises `InvalidCursor`."""
    return decode_cursor(cursor, prefix)[-1]
