"""What memory there is, and whether the kernel killed for want of it."""

from pathlib import Path

import psutil

_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
_KILLS = (
    Path("/sys/fs/cgroup/memory.events"),
    Path("/sys/fs/cgroup/memory/memory.oom_control"),
)


def available_memory() -> int:
    """Return the bytes that this machine has, or this container may have."""
    total = int(psutil.virtual_memory().total)
    for path in _LIMITS:
        if path.exists() and (text := path.read_text().strip()).isdigit():
            return min(total, int(text))
    return total


class OomKills:
    """Counts, from its making on, the out-of-memory kills in this container."""

    def __init__(self) -> None:
        self._before = _oom_kills()

    def happened(self) -> bool:
        """Tell whether there was one since."""
        return _oom_kills() > self._before


def _oom_kills() -> int:
    for path in _KILLS:
        if not path.exists():
            continue
        for line in path.read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0
