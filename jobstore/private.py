"""Keeps what a process holds and writes from the other users of its machine, and from its children.

Every part of the service calls `keep_private` first, before it reads a setting or makes a file.
"""

import contextlib
import ctypes
import os

# Operation of Linux's prctl.
_PR_SET_DUMPABLE = 4
_UMASK = 0o077


def keep_private() -> None:
    """Make files for this user alone, and let no process of theirs read this one's memory.

    Otherwise a job's child could read our secrets through /proc, and a crash could leave them in a
    core file. (Root still can.) What this process starts inherits the first, not the second.
    """
    os.umask(_UMASK)
    # Linux has it; elsewhere processes are left as they are.
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
