"""Free TCP ports, chosen before the server that will listen on them starts."""

import socket


def free_port(host: str) -> int:
    """A TCP port of `host` on which nothing listens now."""
    return listen_briefly(host, 0)


def listen_briefly(host: str, port: int) -> int:
    """Listen on `host:port` (0: any port) for a moment; returns the port.

    Raises OSError if no server can listen there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listener:
        chosen: int = listener.getsockname()[1]
        return chosen
