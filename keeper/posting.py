"""Sends POST requests to addresses that have been checked, and to no others.

A host's name is resolved once. All of its addresses must be allowed, and the connection is made to
one of these addresses, so it does not matter if the name resolves differently the next time. TLS
still verifies the name. Redirects are not followed, and the environment's proxies are not used.

A request has one deadline for everything: the name's look-up, connecting, TLS and the answer. A
receiver that let one pass has a short one until it answers again: see `_Patience`.
"""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any
from urllib.parse import SplitResult

import httpcore

from jobstore.destinations import Destinations

#: A function from a host and a port to the host's addresses.
Resolve = Callable[[str, int], list[str]]

#: The time limits of a name's look-up, and of a connection to one address, in seconds.
LOOK_UP_S = 5.0
CONNECT_S = 5.0
WHOLE_S = 20.0
"""The time limit of a whole request: a receiver that answers slowly must not hold a sender."""
BRIEF_S = 2.0
"""The same for a receiver that let the last one pass, but for one request in `PROBE_S`."""
PROBE_S = 60.0


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host, as the system resolves it; raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Poster:
    """Sends requests to the destinations that the operator allows."""

    def __init__(self, destinations: Destinations, resolve: Resolve = resolve) -> None:
        self._destinations = destinations
        self._resolve = resolve
        self._patience = _Patience()
        self._tls = ssl.create_default_context()

    def post(self, url: str, headers: Sequence[tuple[str, str]], content: bytes) -> int:
        """Send a request; returns the status of the answer, of which nothing else is read.

        Raises `jobstore.destinations.Forbidden`, OSError for a host that is not found, and
        httpcore's errors.
        """
        receiver = _receiver(self._destinations.check_url(url))
        with self._patience.of(receiver) as limit_s:
            backend = _Checked(self._destinations, self._resolve, _Deadline(limit_s))
            timeout = dict.fromkeys(("connect", "read", "write", "pool"), limit_s)
            with (
                httpcore.ConnectionPool(ssl_context=self._tls, network_backend=backend) as pool,
                pool.stream(
                    "POST",
                    url,
                    headers=list(headers),
                    content=content,
                    extensions={"timeout": timeout},
                ) as response,
            ):
                return int(response.status)


def _receiver(parts: SplitResult) -> str:
    """Return what webhooks with the same server have in common, whatever their paths."""
    return f"{parts.scheme}://{(parts.hostname or '').rstrip('.')}:{parts.port}"


class _Patience:
    """How long each receiver may take: a short time once it has let the whole one pass.

    Else a receiver that never answers would hold its tenant's turns 20 seconds each. One that is
    slow and well is tried at length now and then, also by the tries of a delivery that are hours
    apart, and has its whole time again as soon as it answers.
    """

    def __init__(self) -> None:
        self._slow: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def of(self, receiver: str) -> Iterator[float]:
        """Yield the seconds that a request may take, and learn from what comes of it."""
        try:
            yield self._limit(receiver)
        except (httpcore.TimeoutException, TimeoutError):
            with self._lock:
                self._slow.setdefault(receiver, time.monotonic())
                # Those that were not called for long are forgotten, so that this does not grow.
                while len(self._slow) > _MOST_REMEMBERED:
                    del self._slow[min(self._slow, key=lambda name: self._slow[name])]
            raise
        with self._lock:
            self._slow.pop(receiver, None)

    def _limit(self, receiver: str) -> float:
        """Return the short time if the receiver was slow and was tried at length of late."""
        now = time.monotonic()
        with self._lock:
            probed = self._slow.get(receiver)
            if probed is None:
                return WHOLE_S
            if now - probed < PROBE_S:
                return BRIEF_S
            self._slow[receiver] = now
            return WHOLE_S


_MOST_REMEMBERED = 10_000


class _Deadline:
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


class _Checked(httpcore.NetworkBackend):
    """Connects only to allowed addresses, and within the request's time."""

    def __init__(self, destinations: Destinations, resolve: Resolve, deadline: _Deadline) -> None:
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

    def __init__(self, stream: httpcore.NetworkStream, deadline: _Deadline) -> None:
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
