"""Reads a multipart/form-data request part by part as it arrives, holding no part whole.

Starlette's own form parser spools every file to disk before a handler runs, so it can neither hash
on the way nor refuse early; this one hands each chunk on as python-multipart finds it.
"""

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from api.problems import Problem
from api.text import clip

# A part that is not a file (a job spec, a name) may be this large.
MAX_TEXT_BYTES = 256 * 1024


@dataclass(frozen=True)
class _Begin:
    name: str
    filename: str | None


@dataclass(frozen=True)
class _End:
    pass


_Event = _Begin | bytes | _End


class Part:
    """One part of the body. Read it with `chunks` or `text` before asking for the next."""

    def __init__(self, begin: _Begin, events: AsyncIterator[_Event]) -> None:
        self.name = begin.name
        self.filename = begin.filename
        self._events = events

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the content as it arrives; raises `malformed_multipart` if it stops half-way."""
        async for event in self._events:
            if not isinstance(event, bytes):
                return
            yield event

    async def text(self) -> str:
        """Return the content of a short part; raises `invalid_value` past `MAX_TEXT_BYTES`."""
        content = bytearray()
        async for chunk in self.chunks():
            content += chunk
            if len(content) > MAX_TEXT_BYTES:
                detail = f"The part {self.name!r} has more than {MAX_TEXT_BYTES} bytes."
                raise Problem("invalid_value", detail, self.name)
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            detail = f"The part {self.name!r} is not UTF-8 text: {error}."
            raise Problem("invalid_value", detail, self.name) from error


async def read_parts(
    request: Request, body: AsyncIterator[bytes], max_bytes: int
) -> AsyncIterator[Part]:
    """Yield the parts of the request's body, which `body` streams, in order.

    Raises `unsupported_media_type`, `malformed_multipart`, and `file_too_large` once the whole
    body, boundaries and all, has passed `max_bytes`.
    """
    events = _read_events(_boundary(request), body, max_bytes)
    async for event in events:
        # This passes over whatever the caller left unread of the part before.
        if isinstance(event, _Begin):
            yield Part(event, events)


async def _read_events(
    boundary: bytes, body: AsyncIterator[bytes], max_bytes: int
) -> AsyncIterator[_Event]:
    wire = _Wire(boundary)
    size = 0
    async for chunk in body:
        size += len(chunk)
        if size > max_bytes:
            raise too_large("The request has more", max_bytes)
        wire.write(chunk)
        while wire.events:
            yield wire.events.popleft()
        if wire.finished:
            return
    raise _malformed("the body ends before its last boundary")


def too_large(what: str, max_bytes: int) -> Problem:
    """Return the refusal of `what`, a half sentence that says how large it is."""
    detail = f"{what}, the limit is {max_bytes} bytes; nothing of it was kept."
    return Problem("file_too_large", detail)


def _boundary(request: Request) -> bytes:
    content_type, options = parse_options_header(request.headers.get("Content-Type"))
    if content_type != b"multipart/form-data":
        raise Problem("unsupported_media_type", "Send multipart/form-data here (curl -F does).")
    if b"boundary" not in options:
        raise _malformed("the Content-Type header has no boundary")
    return options[b"boundary"]


class _Wire:
    """Turns the push parser's callbacks into a queue of events."""

    def __init__(self, boundary: bytes) -> None:
        self.events: deque[_Event] = deque()
        self.finished = False
        self._headers: dict[bytes, bytes] = {}
        self._name = b""
        self._value = b""
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_header_begin": self._header_begin,
                    "on_header_field": self._header_field,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_finished,
                    "on_part_data": self._part_data,
                    "on_part_end": self._part_end,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise _malformed(str(error)) from error

    def write(self, chunk: bytes) -> None:
        """Take in the next bytes of the body; what they amount to is in `events` then."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _malformed(str(error)) from error

    def _header_begin(self) -> None:
        self._name = self._value = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._name.lower()] = self._value

    def _headers_finished(self) -> None:
        disposition, options = parse_options_header(self._headers.get(b"content-disposition"))
        if disposition != b"form-data" or b"name" not in options:
            raise _malformed("a part has no name")
        self._headers = {}
        filename = options.get(b"filename")
        self.events.append(
            _Begin(_decode(options[b"name"]), None if filename is None else _decode(filename))
        )

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self.events.append(data[start:end])

    def _part_end(self) -> None:
        self.events.append(_End())

    def _end(self) -> None:
        self.finished = True


def _decode(text: bytes) -> str:
    return clip(text.decode(errors="replace").replace("\0", ""), 255)


def _malformed(reason: str) -> Problem:
    return Problem("malformed_multipart", f"The multipart body cannot be read: {reason}.")
