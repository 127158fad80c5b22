"""How much memory there is, and whether the kernel killed a process because it ran out."""

from pathlib import Path

import psutil

# Files with the memory limit and the number of kills of a container (cgroup versions 2 and 1).
_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
_KILLS = (
    Path("/sys/fs/cgroup/memory.events"),
    Path("/sys/fs/cgroup/memory/memory.oom_control"),
)


def available_memory() -> int:
    """Return the bytes of memory of this machine, or of this container if it has a limit."""
    total = int(psutil.virtual_memory().total)
    for path in _LIMITS:
        if path.exists() and (text := path.read_text().strip()).isdigit():
            return min(total, int(text))
    return total


class OomKills:
    """Notices out-of-memory kills in this container from the moment when it is made."""

    def __init__(self) -> None:
        self._before = _oom_kills()

    def happened(self) -> bool:
        """Tell whether there has been a kill since then."""
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
