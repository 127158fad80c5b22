"""Linux's calls that Python has no function for; each raises OSError where it fails."""

import ctypes
import errno
import os

# Operations of prctl.
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38
# Of capset: the version of its structures.
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def syscall(number: int, *arguments: object) -> int:
    """Make a system call by its number."""
    return _checked(_libc.syscall(ctypes.c_long(number), *arguments))


def prctl(operation: int, *arguments: object) -> int:
    """Call prctl; arguments that are not given are 0."""
    padded = [*arguments, *(ctypes.c_ulong(0) for _ in range(4 - len(arguments)))]
    return _checked(_libc.prctl(operation, *padded))


def unshare(flags: int) -> None:
    """Move this process into new namespaces."""
    _checked(_libc.unshare(flags))


def gain_no_privileges() -> None:
    """Have nothing that is executed from here on gain privileges; a sandbox needs it."""
    prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1))


def be_dumpable() -> None:
    """Let this process look into its own /proc again, after a change of its user."""
    prctl(_PR_SET_DUMPABLE, ctypes.c_ulong(1))


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


def drop_capabilities() -> None:
    """Give up all powers of root that this process has; without new privileges they stay gone."""
    header, none = _Header(_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    _checked(_libc.capset(ctypes.byref(header), ctypes.byref(none)))


def capabilities() -> int:
    """The powers of root that this process has, as bits."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))


def name(error: OSError) -> str:
    """The error's short name, such as EPERM."""
    return errno.errorcode.get(error.errno or 0, str(error))


def _checked(answer: int) -> int:
    if answer == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return answer
