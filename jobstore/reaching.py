"""Connections to addresses that have been checked, and to no others, in a limited time.

A host's name is resolved once. All of its addresses must be allowed, and the connection is made to
one of these addresses, so it does not matter if the name resolves differently the next time. TLS
still verifies the name. The environment's proxies are not used.
"""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

import httpcore

from jobstore.destinations import Destinations

#: A function from a host and a port to the host's addresses.
Resolve = Callable[[str, int], list[str]]

#: The time limits of a name's look-up, and of a connection to one address, in seconds.
LOOK_UP_S = 5.0
CONNECT_S = 5.0


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host, as the system resolves it; raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Deadline:
    """The end of a request's time."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._until = time.monotonic() + limit_s

    def left(self, timeout: float | None = None) -> float:
        """Return the seconds left, at most `timeout`; raises `httpcore.ReadTimeout` at the end."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout(f"no answer within {self._limit_s:g} s")
        return left if timeout is None else min(left, timeout)


def _within(seconds: float, resolve: Resolve, host: str, port: int) -> list[str]:
    """Call `resolve`, but wait no longer; raises TimeoutError.

    The C library's look-up cannot be stopped, so it is left to itself in a thread of its own, and
    ends when the library gives up.
    """
    found: Future[list[str]] = Future()

    def look_up() -> None:
        try:
            found.set_result(resolve(host, port))
        except BaseException as error:
            found.set_exception(error)

    threading.Thread(target=look_up, name="look-up", daemon=True).start()
    return found.result(seconds)


class Checked(httpcore.NetworkBackend):
    """Connects only to allowed addresses, and within the request's time."""

    def __init__(self, destinations: Destinations, resolve: Resolve, deadline: Deadline) -> None:
        self._destinations = destinations
        self._resolve = resolve
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        addresses = _within(self._deadline.left(LOOK_UP_S), self._resolve, host, port)
        for address in addresses:
            self._destinations.check_address(address)
        error: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses:
            left = self._deadline.left(CONNECT_S)
            try:
                stream = httpcore.SyncBackend().connect_tcp(address, port, timeout=left)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as failed:
                error = failed
            else:
                return _Bounded(stream, self._deadline)
        raise error


class _Bounded(httpcore.NetworkStream):
    """A stream that does not wait past the end of the request's time."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        left = self._deadline.left(timeout)
        return _Bounded(self._stream.start_tls(ssl_context, server_hostname, left), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
