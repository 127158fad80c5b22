"""Landlock: a process gives up all files but those that it names, TCP, and signals to strangers.

By three system calls, without a library: those on the package index are younger than a year, and
what they add is a table of constants. https://docs.kernel.org/userspace-api/landlock.html
"""

import ctypes
import os
from contextlib import ExitStack, suppress
from enum import IntFlag
from pathlib import Path
from stat import S_ISDIR

from sandbox import kernel

# The numbers are the same on all machines.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1  # a flag of the first call: it answers with the kernel's version
_PATH_BENEATH = 1
_TCP_BIND_AND_CONNECT = 0b11
_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11
# The first versions that know them.
_TCP_SINCE, _SCOPES_SINCE = 4, 6


class Access(IntFlag):
    """What may be done to a file; the kernel's bits."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


READ = Access.READ_FILE | Access.READ_DIR
RUN = READ | Access.EXECUTE
DEVICE = Access.READ_FILE | Access.WRITE_FILE | Access.IOCTL_DEV
# All of a folder of one's own, but no links and devices: whoever reads the folder afterwards may
# read more than this process, and a link would lead it to what is not this process's.
OWN = RUN | (
    Access.WRITE_FILE
    | Access.REMOVE_DIR
    | Access.REMOVE_FILE
    | Access.MAKE_DIR
    | Access.MAKE_REG
    | Access.REFER
    | Access.TRUNCATE
)

# The rights that there are for what is not a folder.
_OF_FILES = (
    Access.EXECUTE | Access.WRITE_FILE | Access.READ_FILE | Access.TRUNCATE | Access.IOCTL_DEV
)
# The rights that each version has added to those of the first.
_FIRST = (1 << 13) - 1
_ADDED = {2: Access.REFER, 3: Access.TRUNCATE, 5: Access.IOCTL_DEV}


class _RulesetAttr(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("fs", "net", "scoped"))


class _PathBeneathAttr(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> int:
    """The kernel's version of Landlock; raises OSError where it has none."""
    return kernel.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION))


def known(version: int) -> Access:
    """The rights to files that a version knows."""
    rights = Access(_FIRST)
    for since, added in _ADDED.items():
        if version >= since:
            rights |= added
    return rights


class Ruleset:
    """What a process keeps. All else is gone once `restrict_self` is called.

    Files are opened as they are allowed, so by the user that the process has then.
    """

    def __init__(self, *, tcp: bool) -> None:
        """`tcp`: whether TCP connections stay. Raises OSError where there is no Landlock."""
        self.version = version()
        self._rights = known(self.version)
        self.closed = ["files"]
        attributes = _RulesetAttr(fs=self._rights)
        if self.version >= _TCP_SINCE and not tcp:
            attributes.net = _TCP_BIND_AND_CONNECT
            self.closed.append("tcp")
        if self.version >= _SCOPES_SINCE:
            attributes.scoped = _ABSTRACT_SOCKETS_AND_SIGNALS
            self.closed.append("signals")
        size = ctypes.c_size_t(ctypes.sizeof(attributes))
        # An older kernel takes the longer structure as long as what it does not know is 0.
        self._descriptor = kernel.syscall(_CREATE_RULESET, ctypes.byref(attributes), size, 0)

    def allow(self, path: Path, access: Access) -> None:
        """Keep a file, or a folder with all below it; one that is not there is passed over."""
        with suppress(FileNotFoundError, PermissionError), ExitStack() as stack:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            if not S_ISDIR(os.fstat(descriptor).st_mode):
                access &= _OF_FILES
            rule = _PathBeneathAttr(allowed=access & self._rights, parent=descriptor)
            kernel.syscall(_ADD_RULE, self._descriptor, _PATH_BENEATH, ctypes.byref(rule), 0)

    def restrict_self(self) -> None:
        """Give up the rest, for this thread and all that it starts."""
        kernel.syscall(_RESTRICT_SELF, self._descriptor, 0)
        os.close(self._descriptor)
