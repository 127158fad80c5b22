"""A network of a process's own, in which there is a loopback and nothing else."""

import fcntl
import os
import socket
import struct

from sandbox import kernel

# Constants of Linux's unshare and of its ioctl for network interfaces.
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1


def leave() -> None:
    """Leave the machine's network, as root may; raises OSError."""
    kernel.unshare(_CLONE_NEWNET)
    _raise_loopback()


def leave_as_user() -> None:
    """Leave it as anybody may where there are user namespaces for all; raises OSError."""
    user, group = os.getuid(), os.getgid()
    kernel.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
    _keep_ids(user, group)
    _raise_loopback()


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
