"""Byte ranges and validators of a download (RFC 9110, sections 13 and 14)."""

import re
from collections.abc import Mapping

from api.problems import Problem

_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})")


def wanted_range(headers: Mapping[str, str], etag: str, size: int) -> tuple[int, int] | None:
    """Return the part of a file that is asked for, as [start, end), or None for the whole.

    Several ranges, or a form not understood, may be answered with the whole, and are. Raises
    `range_not_satisfiable` for a range that begins past the end.
    """
    match = _RANGE.fullmatch(headers.get("Range", "").strip())
    # If-Range: the rest is only wanted if it is a rest of the same file.
    if match is None or match[0] == "bytes=-" or headers.get("If-Range", etag) != etag:
        return None
    first, last = match.groups()
    if first == "":
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < int(first):
            return None
    if start >= size:
        raise Problem(
            "range_not_satisfiable",
            f"The file has {size} bytes; nothing of it is in {match[0]!r}.",
            "Range",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return start, end


def is_known(headers: Mapping[str, str], etag: str) -> bool:
    """Tell whether the caller has this very file already (If-None-Match)."""
    known = headers.get("If-None-Match", "")
    tags = [tag.strip().removeprefix("W/") for tag in known.split(",")]
    return etag in tags or tags == ["*"]
