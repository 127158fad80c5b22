"""How much memory there is, and whether the kernel killed a process because it ran out."""

from collections.abc import Sequence
from pathlib import Path

import psutil

from jobstore.settings import Settings

# If the settings give no limit, a child may use this share of the memory.
_SHARE = 0.9
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


def memory_limit(settings: Settings) -> int:
    """Return how many bytes a job's processes may hold together."""
    return settings.memory_limit_bytes or int(_SHARE * available_memory())


class OomKills:
    """Notices out-of-memory kills from the moment when it is made.

    It looks at a child's cgroup, or without one at this container.
    """

    def __init__(self, cgroup: Path | None = None) -> None:
        self._files = _KILLS if cgroup is None else (cgroup / "memory.events",)
        self._before = _oom_kills(self._files)

    def happened(self) -> bool:
        """Tell whether there has been a kill since then."""
        return _oom_kills(self._files) > self._before


def _oom_kills(files: Sequence[Path]) -> int:
    for path in files:
        if not path.exists():
            continue
        for line in path.read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0
