"""Sends POST requests to addresses that have been checked, and to no others.

A host's name is resolved once. All of its addresses must be allowed, and the connection is made to
one of these addresses, so it does not matter if the name resolves differently the next time. TLS
still verifies the name. Redirects are not followed, and the environment's proxies are not used.
"""

import socket
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import httpcore

from jobstore.destinations import Destinations

#: A function from a host and a port to the host's addresses.
Resolve = Callable[[str, int], list[str]]

#: The time limit of a connection, in seconds.
CONNECT_S = 5.0
WHOLE_S = 20.0
"""The time limit of a whole request: a receiver that answers slowly must not hold a sender."""


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host, as the system resolves it; raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Poster:
    """Sends requests to the destinations that the operator allows."""

    def __init__(self, destinations: Destinations, resolve: Resolve = resolve) -> None:
        self._destinations = destinations
        self._resolve = resolve
        self._tls = ssl.create_default_context()

    def post(self, url: str, headers: Sequence[tuple[str, str]], content: bytes) -> int:
        """Send a request; returns the status of the answer, of which nothing else is read.

        Raises `jobstore.destinations.Forbidden`, OSError for a host that is not found, and
        httpcore's errors.
        """
        self._destinations.check_url(url)
        backend = _Checked(self._destinations, self._resolve, time.monotonic() + WHOLE_S)
        timeout = {"connect": CONNECT_S, "read": WHOLE_S, "write": WHOLE_S, "pool": WHOLE_S}
        with (
            httpcore.ConnectionPool(ssl_context=self._tls, network_backend=backend) as pool,
            pool.stream(
                "POST", url, headers=list(headers), content=content, extensions={"timeout": timeout}
            ) as response,
        ):
            return int(response.status)


class _Checked(httpcore.NetworkBackend):
    """Connects only to allowed addresses, and lets connections end at the time `until`."""

    def __init__(self, destinations: Destinations, resolve: Resolve, until: float) -> None:
        self._destinations = destinations
        self._resolve = resolve
        self._until = until

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        addresses = self._resolve(host, port)
        for address in addresses:
            self._destinations.check_address(address)
        error: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                stream = httpcore.SyncBackend().connect_tcp(address, port, timeout=timeout)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as failed:
                error = failed
            else:
                return _Bounded(stream, self._until)
        raise error


class _Bounded(httpcore.NetworkStream):
    """A stream that does not wait past the time `until`."""

    def __init__(self, stream: httpcore.NetworkStream, until: float) -> None:
        self._stream = stream
        self._until = until

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        left = self._left(timeout)
        return _Bounded(self._stream.start_tls(ssl_context, server_hostname, left), self._until)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def _left(self, timeout: float | None) -> float:
        left = self._until - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout(f"no answer within {WHOLE_S:.0f} s")
        return left if timeout is None else min(left, timeout)
