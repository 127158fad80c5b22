"""Limits that every platform has: of files, of processes, of priority."""

import os
import resource
from contextlib import suppress

_OPEN_FILES = 4096
# The priority is lower than that of the API and the databases by this much.
_NICE = 4


def lower(*, file_bytes: int, processes: int | None) -> None:
    """Limit this process and all that it will start.

    A file may not grow past `file_bytes`, at most 4,096 files may be open, there are no core dumps,
    and this process's user may not have more than so many processes and threads, if that is given.
    """
    _lower(resource.RLIMIT_FSIZE, file_bytes)
    _lower(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _lower(resource.RLIMIT_CORE, 0)
    if processes is not None:
        _lower(resource.RLIMIT_NPROC, processes)
    os.nice(_NICE)


def _lower(which: int, limit: int) -> None:
    _, hard = resource.getrlimit(which)
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(which, (limit, limit))


def threads_of(user: int) -> int:
    """Count the threads of a user that this process can see."""
    count = 0
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError):
            if os.stat(f"/proc/{pid}").st_uid == user:
                count += len(os.listdir(f"/proc/{pid}/task"))
    return count
