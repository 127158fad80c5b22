"""Sends POST requests to addresses that have been checked, and to no others.

How a host is reached: `jobstore.reaching`. Redirects are not followed.

A request has one deadline for everything: the name's look-up, connecting, TLS and the answer. A
receiver that let one pass has a short one until it answers again: see `_Patience`.
"""

import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import SplitResult

import httpcore

from jobstore.destinations import Destinations
from jobstore.reaching import Checked, Deadline, Resolve, resolve

WHOLE_S = 20.0
"""The time limit of a whole request: a receiver that answers slowly must not hold a sender."""
BRIEF_S = 2.0
"""The same for a receiver that let the last one pass, but for one request in `PROBE_S`."""
PROBE_S = 60.0


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
            backend = Checked(self._destinations, self._resolve, Deadline(limit_s))
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
