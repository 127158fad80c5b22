"""Requests that no library would send, for `benchmarks.siege`."""

import json
import random
import socket
from contextlib import suppress
from urllib.parse import urlsplit

from benchmarks.target import TENANTS, Target

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW", "get")


class Raw:
    """Sends what no library would: half requests, wrong lengths, bytes that are no text."""

    def __init__(self, target: Target, source: random.Random) -> None:
        self._target, self._source = target, source
        parts = urlsplit(target.url)
        self._address = (parts.hostname or "", parts.port or 80)

    def __call__(self) -> None:
        """Send one, and read the answer if one comes."""
        sent, is_whole = self._request()
        self._target.add("requests")
        with suppress(OSError), socket.create_connection(self._address, timeout=30) as connection:
            connection.sendall(sent)
            if not is_whole:
                return  # Broken off: the service has to bear it, and to answer others.
            connection.shutdown(socket.SHUT_WR)
            status, _, headers = _answer(connection)
            if status >= 500 and not (status == 507 or b"retry-after" in headers.lower()):
                self._target.fault("server_errors", f"{sent[:300]!r} answered {status}")

    def _request(self) -> tuple[bytes, bool]:
        choose = self._source.choice
        path = choose(
            (
                "/jobs",
                "/models",
                "/uploads",
                "/jobs/%00",
                "/jobs/%ff%fe",
                "//",
                "/../etc",
                "*",
                "/" + "a" * 20_000,
                "/jobs?limit=%C3%28",
                "/jobs?cursor=" + "A" * 5000,
                "/tenants/\u00e4",
            )
        )
        key = self._target.keys[TENANTS[0]].encode()
        headers = [
            b"Host: localhost",
            b"Authorization: Bearer " + choose((key, key, key, b"", b"\xff\xfe", b"x" * 9000)),
            b"Content-Type: "
            + choose(
                (
                    b"application/json",
                    b"multipart/form-data; boundary=x",
                    b"multipart/form-data",
                    b"text/\xe4",
                    b"",
                )
            ),
        ]
        body = choose(_BODIES)
        length = choose((len(body), len(body), len(body), len(body) + 10, 2**63, -1))
        if self._source.random() < 0.2:
            headers.append(b"Transfer-Encoding: chunked")
        else:
            headers.append(f"Content-Length: {length}".encode())
        extra = (
            b"Content-Length: 1",
            b"Idempotency-Key: " + b"\xf0\x9f" * 50,
            b"Expect: 100-continue",
            b"Range: bytes=0-,-1,5-2",
            b"Last-Event-ID: 99999999999999999999",
            b"Cookie: " + b"a=b;" * 900,
            b"X-Request-Id: \x1b[31m",
            b"Accept: " + b"text/html;q=" * 200,
            b"Upgrade: websocket",
            b"Upload-Length: 1e9",
            b"Upload-Metadata: filename \xff",
            b" folded: yes",
            b"no colon",
            b"",
        )
        headers += self._source.sample(extra, self._source.randint(0, 3))
        start = f"{choose(_METHODS)} {path} {choose(('HTTP/1.1',) * 5 + ('HTTP/1.0', 'HTTP/9.9'))}"
        whole = b"\r\n".join([start.encode(), *headers, b"", body])
        if self._source.random() < 0.2:
            return whole[: self._source.randrange(len(whole))], False
        return whole, True


_FIELD = b'--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
_BODIES = (
    b"",
    b"{}",
    b"[" * 50_000,
    b'{"a":1,"a":2}',
    b'{"model_id":"\xff\xfe"}',
    b'{"model_id":"\\ud800"}',
    b'{"priority":' + b"9" * 5000 + b"}",
    b'{"priority":1e400,"model_id":NaN}',
    b'{"name":"' + b"a" * 200_000 + b'"}',
    b"\xef\xbb\xbf{}",
    json.dumps({"model_id": "\x00", "dataset_id": None}).encode("utf-16"),
    _FIELD + b"abc\r\n--x--\r\n",
    _FIELD * 3 + b"abc\r\n--x--\r\n",
    _FIELD + b"abc",
    b"--x\r\n" + b"A: b\r\n" * 5000 + b"\r\n\r\n--x--",
    b'--x\r\nContent-Disposition: form-data; name="\xff"\r\n\r\n--x--\r\n',
    b"5\r\nabcde\r\n0\r\n\r\n",
    b"fffffffffffffffff\r\nabc",
)


def _answer(connection: socket.socket) -> tuple[int, bytes, bytes]:
    answer = b""
    while b"\r\n\r\n" not in answer and (more := connection.recv(65536)):
        answer += more
    line, _, headers = answer.partition(b"\r\n")
    parts = line.split(b" ")
    status = int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 0
    return status, line, headers
