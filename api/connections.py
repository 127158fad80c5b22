"""How bytes become requests: uvicorn's protocol on httptools, and the limits that it lacks.

Whoever connects has not been let in yet, and a connection costs a file descriptor, of which there
are few. So a request has a deadline until it is complete, and of those that are not, an address may
have so many at a time: with one more, the oldest whose headers have not come is dropped.
"""

import asyncio
import resource
from collections.abc import Callable
from typing import Any, ClassVar, cast

import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEADER_BYTES = 64 * 1024

HEADER_S = 10.0
"""So long after a connection is there, or after its next request has begun, the headers are.

A TLS handshake takes no longer, either.
"""
BODY_S = 30.0
"""So long after the last `BODY_BYTES` of a body, or its beginning, come the next, or its end."""
BODY_BYTES = 1024
MAX_UNFINISHED = 100
"""Requests of one address that are not complete, at a time."""
# The descriptors that are kept for files, the database, the store and the broker.
_SPARE_DESCRIPTORS = 200

_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\n"
    b"Connection: close\r\n\r\n"
)


def raise_descriptors() -> int:
    """Let this process open as many files as it may; return how many connections that leaves."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return max(_SPARE_DESCRIPTORS, hard - _SPARE_DESCRIPTORS)


_Waiting = dict[str, dict["Connection", None]]


class Loop(uvloop.Loop):
    """uvloop, whose servers do not wait for a TLS handshake as long as it would (60 s)."""

    async def create_server(self, *args: Any, **options: Any) -> asyncio.Server:
        """As `asyncio.AbstractEventLoop.create_server`."""
        if options.get("ssl") is not None:
            options["ssl_handshake_timeout"] = HEADER_S
        return cast(asyncio.Server, await super().create_server(*args, **options))


class Connection(HttpToolsProtocol):
    """A connection that may not send headers without end, nor keep a request unfinished.

    What is counted of headers is what comes without finishing anything: the request's line,
    headers, trailers. Bodies have limits of their own, by what they are.
    """

    max_connections: ClassVar[int] = 1 << 20
    # Connections whose request has no headers yet, and whose body is on its way, by their address
    # and in the order in which they began.
    _without_headers: ClassVar[_Waiting] = {}
    _with_body: ClassVar[_Waiting] = {}

    _unfinished = 0
    _came = 0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request, or turn the connection away."""
        super().connection_made(transport)  # type: ignore[arg-type]
        address = self._address
        own = [waiting.get(address, {}) for waiting in (self._without_headers, self._with_body)]
        too_many = len(self.connections) > self.max_connections and not self._drop_oldest(
            max(self._without_headers, key=self._count_without_headers, default="")
        )
        if too_many or (sum(map(len, own)) >= MAX_UNFINISHED and not self._drop_oldest(address)):
            self.transport.write(_BUSY)
            self.transport.close()
            return
        self._await(self._without_headers, HEADER_S, self._look_at_headers)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._await_nothing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, unless there has been too much already."""
        self._unfinished += len(data)
        super().data_received(data)
        if self._unfinished > MAX_HEADER_BYTES and not self.transport.is_closing():
            self.send_400_response("The request's headers are too long.")

    def on_message_begin(self) -> None:
        """Wait for the headers of the next request; those of the first are awaited already."""
        super().on_message_begin()
        if self._deadline is None:
            self._await(self._without_headers, HEADER_S, self._look_at_headers)

    def on_headers_complete(self) -> None:
        """Count anew, and wait for the body."""
        self._unfinished = self._came = 0
        self._await(self._with_body, BODY_S, self._look_at_body)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Count anew."""
        self._unfinished = 0
        self._came += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Count anew, and wait for nothing: the request is complete."""
        self._unfinished = 0
        self._await_nothing()
        super().on_message_complete()

    @property
    def _address(self) -> str:
        return self.client[0] if self.client else ""

    def _await(self, waiting: _Waiting, seconds: float, look: Callable[[], None]) -> None:
        self._await_nothing()
        waiting.setdefault(self._address, {})[self] = None
        self._deadline = self.loop.call_later(seconds, look)

    def _await_nothing(self) -> None:
        if self._deadline is None:
            return
        self._deadline.cancel()
        self._deadline = None
        for waiting in (self._without_headers, self._with_body):
            mine = waiting.get(self._address, {})
            mine.pop(self, None)
            if not mine:
                waiting.pop(self._address, None)

    # While we do not read, because what has come is not used yet, nothing can come.
    def _look_at_headers(self) -> None:
        if not self.flow.read_paused:
            self._drop()
        else:
            self._await(self._without_headers, HEADER_S, self._look_at_headers)

    def _look_at_body(self) -> None:
        if self._came < BODY_BYTES and not self.flow.read_paused:
            self._drop()
        else:
            self._came = 0
            self._await(self._with_body, BODY_S, self._look_at_body)

    def _drop(self) -> None:
        self._await_nothing()
        # The request's handler hears that its client is gone.
        self.transport.abort()

    @classmethod
    def _count_without_headers(cls, address: str) -> int:
        return len(cls._without_headers[address])

    @classmethod
    def _drop_oldest(cls, address: str) -> bool:
        """Drop the oldest of the address's connections without headers, if there is one."""
        mine = cls._without_headers.get(address)
        if mine:
            next(iter(mine))._drop()
        return bool(mine)
