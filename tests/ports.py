"""TCP ports that no other test process takes between their choice and the server's start."""

import random
import socket

from launcher.ports import listen_briefly

# Below the ports that the system hands out by itself, and below SeaweedFS's.
_PORTS = range(10_000, 20_000)
# Each is a name that only one process of the machine can have; the system frees it at its end.
_HELD: list[socket.socket] = []


def free_ports(count: int) -> list[int]:
    """Different ports of 127.0.0.1 on which nobody listens, this process's own until it ends.

    Raises OSError where there are not so many.
    """
    found: list[int] = []
    for port in random.SystemRandom().sample(_PORTS, 1000):
        if len(found) == count:
            return found
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0atmc-test-port-{port}")
            listen_briefly("127.0.0.1", port)
        except OSError:
            name.close()
            continue
        _HELD.append(name)
        found.append(port)
    raise OSError(f"there are no {count} free ports in {_PORTS}")
