"""What the child gives up before it looks at an untrusted file. No torch here: it must come first.

Memory is not limited here: an address-space limit breaks CUDA. The supervisor watches it.
"""

import ctypes
import errno
import fcntl
import os
import resource
import socket
import struct

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1

_OPEN_FILES = 4096
_NICE = 4


def enter(*, max_file_bytes: int) -> str:
    """Limit this process and all it will start; returns a sentence on the network.

    - a file may not grow past `max_file_bytes`, no more than 4,096 are open, none is a core dump;
    - its priority is below the API's and the databases', so that a job leaves them the machine;
    - the network is gone, but for a loopback of its own, where the kernel lets us: as root, or
      where unprivileged user namespaces are allowed. Docker's default seccomp profile forbids
      both; there the sentence says so, and the container's network is what limits it.

    Call it before any thread exists.
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
    """Processes of one job that train together meet there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = struct.pack("16sh14x", b"lo", 0)
        answer = fcntl.ioctl(probe, _SIOCGIFFLAGS, request)
        (flags,) = struct.unpack_from("16xh", answer)
        fcntl.ioctl(probe, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))
