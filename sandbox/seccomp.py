"""seccomp: a filter that every system call of this process, and of all it starts, passes from now.

It refuses what is known to be dangerous and lets the rest through. A list of what is let through
would be tighter, but torch, CUDA's driver and the C library make other calls with each release and
each machine, and a job that ends by a call that nobody thought of helps nobody. The filter is a
hundred instructions of classic BPF that are assembled here: the bindings of libseccomp need a
library that slim images do not have.
"""

import ctypes
import errno
import platform
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

from sandbox import kernel, syscalls

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# The bit by which x86-64 marks calls of its ABI with short pointers; no other call has it.
_X32 = 0x40000000

# Opcodes of classic BPF: load a word, compare, return.
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _MASK, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
# Where the kernel puts the call: its number, the architecture, and the arguments' lower halves.
_NUMBER, _ARCHITECTURE = 0, 4
_ARGUMENTS = (16, 24, 32)

_SOCKET_TYPE = 0xF
_CONNECTED = (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)
_OF_THE_TOGETHER = (
    socket.AF_UNIX,
    socket.AF_INET,
    socket.AF_INET6,
    getattr(socket, "AF_NETLINK", 16),
)


class Instruction(NamedTuple):
    """One instruction: how many to skip where the comparison holds, and where it does not."""

    code: int
    then: int
    otherwise: int
    value: int

    def packed(self) -> bytes:
        """The kernel's `struct sock_filter`."""
        return struct.pack("=HBBI", *self)


class Unsupported(Exception):
    """There is no filter for this processor; the message names it."""


def program(machine: str, *, together: bool) -> list[Instruction]:
    """Return the filter for a processor, "x86_64" or "aarch64".

    Sockets are refused but for those of AF_UNIX that are connected as they are made (those of
    socketpair), or can never be. With `together` processes may reach each other: over TCP and UDP,
    AF_UNIX, and netlink, by which libraries list the interfaces. Raises `Unsupported`.
    """
    if machine not in _AUDIT_ARCH:
        raise Unsupported(f"no filter for {machine}")
    looked_at = syscalls.LOOKED_AT[machine]
    denied = set(syscalls.DENIED[machine].values())
    if not together:
        denied |= set(syscalls.OF_SOCKETS[machine].values())
    lines = [
        Instruction(_LOAD, 0, 0, _ARCHITECTURE),
        Instruction(_EQUAL, 1, 0, _AUDIT_ARCH[machine]),
        _refuse(errno.EPERM),
        Instruction(_LOAD, 0, 0, _NUMBER),
    ]
    if machine == "x86_64":
        lines += [Instruction(_AT_LEAST, 0, 1, _X32), _refuse(errno.EPERM)]
    for number in sorted(denied):
        lines += [Instruction(_EQUAL, 0, 1, number), _refuse(errno.EPERM)]
    lines += [Instruction(_EQUAL, 0, 1, looked_at["clone3"]), _refuse(errno.ENOSYS)]
    lines += _case(looked_at["clone"], _no_namespaces())
    sockets = _families(_OF_THE_TOGETHER) if together else _inert_sockets()
    lines += _case(looked_at["socket"], sockets)
    lines += _case(looked_at["socketpair"], sockets)
    return [*lines, Instruction(_RETURN, 0, 0, _ALLOW)]


def install(*, together: bool) -> None:
    """Have all calls pass the filter from now on; raises OSError and `Unsupported`."""
    lines = program(platform.machine(), together=together)
    content = b"".join(line.packed() for line in lines)
    filters = ctypes.create_string_buffer(content, len(content))
    described = _Program(len(lines), ctypes.cast(filters, ctypes.c_void_p))
    kernel.gain_no_privileges()
    kernel.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_MODE_FILTER), ctypes.byref(described))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filters", ctypes.c_void_p))


def _refuse(error: int) -> Instruction:
    return Instruction(_RETURN, 0, 0, _ERRNO | error)


def _case(number: int, lines: Sequence[Instruction]) -> list[Instruction]:
    """`lines`, which all end in a return, for the call of this number; others pass them by."""
    return [Instruction(_EQUAL, 0, len(lines), number), *lines]


def _no_namespaces() -> list[Instruction]:
    return [
        Instruction(_LOAD, 0, 0, _ARGUMENTS[0]),
        Instruction(_ANY_BIT, 0, 1, syscalls.NAMESPACES),
        _refuse(errno.EPERM),
        Instruction(_RETURN, 0, 0, _ALLOW),
    ]


def _families(allowed: Sequence[int]) -> list[Instruction]:
    return [
        Instruction(_LOAD, 0, 0, _ARGUMENTS[0]),
        *(Instruction(_EQUAL, len(allowed) - at, 0, each) for at, each in enumerate(allowed)),
        _refuse(errno.EPERM),
        Instruction(_RETURN, 0, 0, _ALLOW),
    ]


def _inert_sockets() -> list[Instruction]:
    """AF_UNIX, and only types whose data cannot be sent to an address of their own."""
    types = [
        Instruction(_EQUAL, len(_CONNECTED) - at, 0, each) for at, each in enumerate(_CONNECTED)
    ]
    return [
        Instruction(_LOAD, 0, 0, _ARGUMENTS[0]),
        Instruction(_EQUAL, 0, 2 + len(types), socket.AF_UNIX),
        Instruction(_LOAD, 0, 0, _ARGUMENTS[1]),
        Instruction(_MASK, 0, 0, _SOCKET_TYPE),
        *types,
        _refuse(errno.EPERM),
        Instruction(_RETURN, 0, 0, _ALLOW),
    ]
