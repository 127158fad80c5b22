"""Writes `atmc_client/sync/` from `atmc_client/aio/`.

The packages that do this (unasync, unasyncd) leave docstrings, and so their examples, as they are,
or do not go with our pins; httpcore's authors replace by patterns, too.
"""

import re
from pathlib import Path

from generators.formatting import formatted

ROOT = Path(__file__).parents[1]
SOURCE, TARGET = ROOT / "atmc_client" / "aio", ROOT / "atmc_client" / "sync"
BY_HAND = ("__init__.py", "waits.py")

_HEAD = "# Written from atmc_client/aio/{name} by `make generate`: edit that.\n"
_REPLACED = [
    (r"\bawait ", ""),
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bAsync(Client|Exit|Iterable|Iterator|Generator)", r"\1"),
    (r"\basynccontextmanager\b", "contextmanager"),
    (r"\bpush_async_callback\b", "callback"),
    (r"\bAwaitable\[(\w+)\]", r"\1"),
    (r"\b__a(enter|exit)__", r"__\1__"),
    (r"\.a(close|iter_\w+|read)\b", r".\1"),
    (r"\batmc_client\.aio\b", "atmc_client.sync"),
]


def synchronous(code: str) -> str:
    """Return the code, and the examples in its docstrings, without an event loop."""
    for pattern, replacement in _REPLACED:
        code = re.sub(pattern, replacement, code)
    return code


def written() -> dict[Path, str]:
    """Return what the files are to hold, by their paths."""
    return {
        TARGET / source.name: formatted(
            _HEAD.format(name=source.name) + synchronous(source.read_text()), TARGET / source.name
        )
        for source in sorted(SOURCE.glob("*.py"))
        if source.name not in BY_HAND
    }
