"""What the calls of every noun share: the connection, pages of a list, waiting, events."""

import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any, Self

import httpx

from atmc_client.aio.transport import Content, Param, Transport, events_of
from atmc_client.aio.waits import sleep
from atmc_client.types.requests import Sort

DEFAULT_SERVER = "http://127.0.0.1:8000"
FINAL_STATES = frozenset({"succeeded", "failed", "cancelled"})
LONG_POLL_S = 30
POLL_S = 0.5
NO_MORE = 204
PAGE = 100

Body = dict[str, Any]
"""A JSON object to send."""

Document = Mapping[str, Any]
"""A JSON object as the service sends it."""


def given(**fields: Any) -> Body:
    """Return the fields but those that are None."""
    return {name: value for name, value in fields.items() if value is not None}


def described(
    name: str | None, labels: Mapping[str, str] | None, metadata: Mapping[str, Any] | None
) -> Body:
    """Return what is said of something new; None is left out."""
    return given(name=name, labels=labels and dict(labels), metadata=metadata and dict(metadata))


def network(architecture: str | None, normalization: Mapping[str, Sequence[float]] | None) -> Body:
    """Return what is said of a network's file; None is left out."""
    return given(architecture=architecture, normalization=normalization and dict(normalization))


def filters(
    labels: Mapping[str, str] | None,
    created_after: datetime | None,
    created_before: datetime | None,
    sort: Sort | None,
) -> dict[str, Param]:
    """Return what the lists of jobs, models and data sets have in common, as they ask for it."""
    return {
        "label": [f"{key}:{value}" for key, value in (labels or {}).items()],
        "created_after": None if created_after is None else created_after.isoformat(),
        "created_before": None if created_before is None else created_before.isoformat(),
        "sort": sort,
    }


class Calls:
    """A connection to one service; see `atmc_client.aio.AsyncClient`."""

    def __init__(
        self, url: str | None = None, key: str | None = None, token_command: str | None = None
    ) -> None:
        url = url or os.environ.get("ATMC_SERVER") or DEFAULT_SERVER
        command = None if key else token_command or os.environ.get("ATMC_TOKEN_COMMAND")
        key = None if command else key or os.environ.get("ATMC_API_KEY")
        self._transport = Transport(url, key, command)

    @property
    def url(self) -> str:
        """The server's address."""
        return self._transport.url

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _get(self, path: str, **params: Param) -> Any:
        return await self._transport.get(path, **params)

    async def _all(self, path: str) -> list[Any]:
        """A list that comes in one piece."""
        answer = await self._get(path)
        found: list[Any] = answer["data"]
        return found

    async def _list(
        self,
        path: str,
        limit: int,
        which: Mapping[str, Param] | None = None,
        *,
        page: int | None = None,
    ) -> list[Any]:
        """The first `limit` of a list that comes in pages of at most `page` (PAGE)."""
        found: list[Any] = []
        cursor: str | None = None
        while len(found) < limit:
            part = await self._get(
                path, limit=min(limit - len(found), page or PAGE), cursor=cursor, **(which or {})
            )
            found += part["data"]
            cursor = part["next"]
            if not part["has_more"]:
                break
        return found

    async def _wait(
        self, path: str, on_update: Callable[[Any], None] | None, timeout_s: float | None
    ) -> Any:
        """Wait until what the path names has ended; raises TimeoutError after `timeout_s`."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        found = await self._get(path)
        while found["state"] not in FINAL_STATES:
            left = LONG_POLL_S if deadline is None else deadline - time.monotonic()
            if left <= 0:
                what = path.strip("/").replace("s/", " ", 1)
                raise TimeoutError(f"{what} is still {found['state']} after {timeout_s} s")
            if on_update is None:
                found = await self._get(path, wait=max(1, min(LONG_POLL_S, int(left))))
            else:
                on_update(found)
                await sleep(min(POLL_S, left))
                found = await self._get(path)
        if on_update is not None:
            on_update(found)
        return found

    async def _events(self, path: str, after: int, follow: bool) -> AsyncIterator[Any]:
        """The events of what the path names with a number above `after`, in order."""
        if follow:
            async for event in self._follow(path, after):
                yield event
            return
        more = True
        while more:
            page = await self._get(f"{path}/events", after=after)
            for event in page["data"]:
                after = event["seq"]
                yield event
            more = page["has_more"]

    async def _follow(self, path: str, after: int) -> AsyncIterator[Any]:
        while True:
            headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
            content: Content = partial(dict[str, Any], headers=headers)
            # Streams break off now and then, some on purpose; the next one goes on from there.
            with suppress(httpx.TransportError):
                async with self._transport.exchange("GET", f"{path}/events", content) as response:
                    if response.status_code == NO_MORE:
                        return
                    async for told in events_of(response):
                        event = told.json()
                        after = event["seq"]
                        yield event
            await sleep(POLL_S)
