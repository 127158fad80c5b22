"""Receives a form: files are staged in the object store and inspected, texts parsed, as they come.

A part that is refused ends the request at once, whatever was still to follow.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, Generic, TypeVar, cast

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from api.inspection.process import inspect
from api.problems import Problem, insufficient_storage
from api.services import Services
from api.uploads.multipart import MAX_TEXT_BYTES, Part, read_parts, too_large
from jobstore.disk import Disk
from jobstore.errors import DiskFull, TooLarge
from jobstore.objects import ObjectStore, Stored

T = TypeVar("T")

# So many bytes of a refused body are still read, for so many seconds, before the answer.
_DRAINED_BYTES, _DRAINED_S = 8 << 20, 2.0


@dataclass(frozen=True)
class Upload(Generic[T]):
    """A staged file, and what its inspection found."""

    filename: str
    stored: Stored
    header: T


@dataclass(frozen=True)
class FileRule(Generic[T]):
    """The part `name` is a file of at most `max_bytes` that must pass `look`.

    `look` is called in another process (`api.inspection.process`); `code` is that of its refusals.
    """

    name: str
    max_bytes: int
    look: Callable[[BinaryIO], T]
    code: str

    async def inspect(self, store: ObjectStore, stored: Stored) -> T:
        """Return what is in the staged file; raises Problems."""
        return await inspect(store.tenant, lambda: store.open(stored.key), self.look, self.code)


@dataclass(frozen=True)
class TextRule(Generic[T]):
    """The part `name` is a short text that must pass `parse`."""

    name: str
    parse: Callable[[str], T]


Rule = FileRule[Any] | TextRule[Any]


class Form:
    """The parts of a form that have been received so far."""

    def __init__(self, store: ObjectStore, disk: Disk) -> None:
        self._store = store
        self._disk = disk
        self._values: dict[str, Any] = {}
        self._staged: list[Stored] = []

    def file(self, rule: FileRule[T]) -> Upload[T]:
        """Return a received file; raises `missing_field`."""
        if rule.name not in self._values:
            raise _missing(rule.name, "the file")
        return cast(Upload[T], self._values[rule.name])

    def text(self, rule: TextRule[T]) -> T:
        """Return what a text was parsed to; raises `missing_field`."""
        if rule.name not in self._values:
            raise _missing(rule.name, "it")
        return cast(T, self._values[rule.name])

    def optional_text(self, rule: TextRule[T]) -> T | None:
        """Return what a text was parsed to, or None if it was not sent."""
        return self._values.get(rule.name)

    async def receive(self, part: Part, rules: Sequence[Rule]) -> None:
        """Take in the next part by its rule; raises what the rule does, or `unknown_field`."""
        rule = next((rule for rule in rules if rule.name == part.name), None)
        if rule is None:
            known = ", ".join(rule.name for rule in rules)
            detail = f"The part {part.name!r} is not known; the parts are {known}."
            raise Problem("unknown_field", detail, part.name)
        if part.name in self._values:
            raise Problem("invalid_value", f"The part {part.name!r} comes twice.", part.name)
        try:
            self._values[part.name] = (
                await self._receive_file(part, rule)
                if isinstance(rule, FileRule)
                else await run_in_threadpool(rule.parse, await part.text())
            )
        except Problem as problem:
            # A problem that names nothing smaller is the whole part's.
            problem.param = problem.param or part.name
            raise

    async def _receive_file(self, part: Part, rule: FileRule[T]) -> Upload[T]:
        try:
            chunks = self._disk.watched(part.chunks())
            stored = await self._store.put_stream(chunks, max_bytes=rule.max_bytes)
        except TooLarge as error:
            raise too_large(f"The file in {part.name!r} is larger", rule.max_bytes) from error
        self._staged.append(stored)
        header = await rule.inspect(self._store, stored)
        return Upload(part.filename or part.name, stored, header)

    def discard(self) -> None:
        """Delete whatever of the files is still staged."""
        for stored in self._staged:
            self._store.delete(stored.key)


@asynccontextmanager
async def received(
    request: Request, services: Services, rules: Sequence[Rule]
) -> AsyncIterator[Form]:
    """Receive the request's form; files that the block did not keep are deleted after it.

    Raises `file_too_large` before a file is all read, `malformed_multipart`, `unknown_field`,
    `invalid_value` for a part that comes twice, `DiskFull`, and what inspecting and parsing raise.
    """
    form = Form(services.store, services.disk)
    body = request.stream()
    max_bytes = sum(_max_bytes(rule) for rule in rules) + MAX_TEXT_BYTES
    try:
        _refuse_early(request, max_bytes, services.disk)
        async for part in read_parts(request, body, max_bytes):
            await form.receive(part, rules)
        yield form
    except DiskFull as error:
        problem = insufficient_storage()
        await read_out(body, problem)
        raise problem from error
    except Problem as problem:
        await read_out(body, problem)
        raise
    finally:
        await run_in_threadpool(form.discard)


async def read_out(body: AsyncIterator[bytes], problem: Problem) -> None:
    """Read on for a while, so that a client that is still sending gets to see the problem."""
    if not await _drain(body):
        # The rest of the body is on its way: no request can follow on this connection.
        problem.headers["Connection"] = "close"


async def _drain(body: AsyncIterator[bytes]) -> bool:
    """Read what is left of a refused body, if that is not much; returns whether that was all.

    A connection that closes with bytes unread is reset, and a client that is still sending may then
    never see why it was refused.
    """
    left = _DRAINED_BYTES
    try:
        async with asyncio.timeout(_DRAINED_S):
            async for chunk in body:
                left -= len(chunk)
                if left < 0:
                    return False
    except (TimeoutError, ClientDisconnect):
        return False
    return True


def _max_bytes(rule: Rule) -> int:
    return rule.max_bytes if isinstance(rule, FileRule) else MAX_TEXT_BYTES


def _refuse_early(request: Request, max_bytes: int, disk: Disk) -> None:
    declared = request.headers.get("Content-Length", "0")
    length = int(declared) if declared.isdecimal() else 0
    if length > max_bytes:
        raise too_large(f"The request has {declared} bytes", max_bytes)
    disk.check(length)


def _missing(name: str, what: str) -> Problem:
    return Problem("missing_field", f"The part {name!r} is missing; send {what} in it.", name)
