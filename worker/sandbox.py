"""Restricts the child before it reads an untrusted file.

This module does not import torch, because it has to run before torch starts threads. It does not
limit memory, because a limit of the address space breaks CUDA; the supervisor watches the memory.
"""

import ctypes
import errno
import fcntl
import os
import resource
import socket
import struct

# Constants of Linux's unshare and of its ioctl for network interfaces.
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1

_OPEN_FILES = 4096
# The child's priority is lower than that of the API and the databases by this much.
_NICE = 4


def enter(*, max_file_bytes: int) -> str:
    """Restrict this process and all that it will start.

    - A file may not grow past `max_file_bytes`, at most 4,096 files may be open, and there are no
      core dumps.
    - The priority is lower than that of the API and the databases, so that jobs do not slow them.
    - There is no network but a loopback, if the kernel allows that: it does for root, and for
      others where unprivileged user namespaces are allowed. Docker's default seccomp profile
      forbids both; then the container's own network is the only restriction.

    Call it before any thread is started. Returns a sentence that says what became of the network.
    """
    _lower(resource.RLIMIT_FSIZE, max_file_bytes)
    _lower(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _lower(resource.RLIMIT_CORE, 0)
    os.nice(_NICE)
    return _drop_network()


def _lower(which: int, limit: int) -> None:
    _, hard = resource.getrlimit(which)
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(which, (limit, limit))


def _drop_network() -> str:
    user, group = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) == 0:
        _raise_loopback()
        return "network: dropped"
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0:
        _keep_ids(user, group)
        _raise_loopback()
        return "network: dropped, in a user namespace"
    return f"network: NOT dropped ({errno.errorcode.get(ctypes.get_errno(), 'unknown')})"


def _keep_ids(user: int, group: int) -> None:
    for name, line in (
        ("uid_map", f"{user} {user} 1"),
        ("setgroups", "deny"),
        ("gid_map", f"{group} {group} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(line)


def _raise_loopback() -> None:
    """Enable the loopback, over which the processes of one job communicate."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = struct.pack("16sh14x", b"lo", 0)
        answer = fcntl.ioctl(probe, _SIOCGIFFLAGS, request)
        (flags,) = struct.unpack_from("16xh", answer)
        fcntl.ioctl(probe, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))
