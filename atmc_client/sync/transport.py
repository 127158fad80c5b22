# Written from atmc_client/aio/transport.py by `make generate`: edit that.
"""One HTTP exchange that gets through: retries with backoff, and refusals as exceptions."""

import logging
import os
import random
import shlex
import ssl
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
from httpx_sse import EventSource, ServerSentEvent, SSEError

from atmc_client.errors import ApiError, NoToken, ServerUnreachable
from atmc_client.sync.waits import in_thread, sleep

# A server that never answered is most likely not there; one that did is restarting.
FIRST_PATIENCE_S, PATIENCE_S = 1.0, 30.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0
AWAY = frozenset({429, 502, 503, 504})
UNAUTHORIZED, CONFLICT = 401, 409
# Reading allows for the inspection of a large upload.
TIMEOUT = httpx.Timeout(30.0, connect=5.0, read=120.0)

KEY_EXPIRES = "Key-Expires-At"

log = logging.getLogger(__name__)

Param = str | int | float | Sequence[str] | None
"""A parameter of a query; of several texts each is sent, and None is left out."""

Content = Callable[[], dict[str, Any]]
"""Makes httpx's arguments for a request's body anew, so that a retry sends its files again."""


class Transport:
    """Sends requests to one server; every request may be repeated without harm.

    GET, PATCH and DELETE are idempotent, and each POST carries an Idempotency-Key of its own. Not
    for use by several threads at once.

    `token_command` is a command that prints a token. It is run before the first request, and once
    more when the service says that the token has expired; that request is then sent again.
    """

    def __init__(self, url: str, key: str | None = None, token_command: str | None = None) -> None:
        self.url = url.rstrip("/")
        # A proxy that the environment names cannot reach this machine's own addresses.
        nearby = httpx.URL(self.url).host in ("127.0.0.1", "::1", "localhost")
        authority = os.environ.get("SSL_CERT_FILE") if nearby else None
        self._http = httpx.Client(
            base_url=self.url,
            verify=ssl.create_default_context(cafile=authority) if authority else True,
            # httpx does not send the key on to the store that a download is redirected to.
            headers={"Authorization": f"Bearer {key}"} if key else None,
            timeout=TIMEOUT,
            follow_redirects=True,
            trust_env=not nearby,
        )
        self._token_command = token_command
        self._met = self._warned = False

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, path: str, **params: Param) -> Any:
        """The JSON answer to a GET. Raises as `exchange` does."""
        given = {name: value for name, value in params.items() if value is not None}
        with self.exchange("GET", path, lambda: {"params": given}) as response:
            return _json(response)

    def post(self, path: str, content: Content = dict) -> Any:
        """The JSON answer to a POST. Raises as `exchange` does."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        with self.exchange("POST", path, lambda: {**content(), "headers": headers}) as response:
            return _json(response)

    def patch(self, path: str, document: Mapping[str, Any]) -> Any:
        """The JSON answer to a PATCH with this body. Raises as `exchange` does."""
        with self.exchange("PATCH", path, lambda: {"json": document}) as response:
            return _json(response)

    def delete(self, path: str) -> None:
        """Delete what the path names. Raises as `exchange` does."""
        with self.exchange("DELETE", path, dict):
            pass

    @contextmanager
    def exchange(self, method: str, path: str, content: Content) -> Iterator[httpx.Response]:
        """Yield a successful answer, its body not yet read.

        Raises `ApiError` for a refusal, `ServerUnreachable` when patience has run out, and
        `NoToken`.
        """
        if self._token_command and "Authorization" not in self._http.headers:
            self._ask_for_token()
        response = self._send(method, path, content)
        if self._token_command and _has_expired(response):
            self._ask_for_token()
            response = self._send(method, path, content)
        try:
            if response.is_error:
                response.read()
                raise ApiError.from_response(response)
            yield response
        finally:
            response.close()

    def _ask_for_token(self) -> None:
        assert self._token_command is not None
        token = in_thread(token_of, self._token_command)
        self._http.headers["Authorization"] = f"Bearer {token}"

    def _send(self, method: str, path: str, content: Content) -> httpx.Response:
        began = time.monotonic()
        pause = FIRST_PAUSE_S
        while True:
            wait = pause * random.uniform(0.5, 1.0)
            try:
                request = self._http.build_request(method, path, **content())
                response = self._http.send(request, stream=True)
                self._met = True
                self._warn_of_end(response)
                if not _may_pass(response) or self._is_over(began, wait):
                    return response
                wait = max(wait, _retry_after(response))
                response.close()
            except httpx.TransportError as error:
                if self._is_over(began, wait):
                    raise ServerUnreachable(self.url, error) from error
            sleep(wait)
            pause = min(pause * 2, LONGEST_PAUSE_S)

    def _warn_of_end(self, response: httpx.Response) -> None:
        expires_at = response.headers.get(KEY_EXPIRES)
        if expires_at is not None and not self._warned:
            self._warned = True
            # Without a handler of its own a program shows it on standard error; so does `atmc`.
            log.warning("warning: the key expires at %s; ask for a new one", expires_at)

    def _is_over(self, began: float, wait: float) -> bool:
        patience = PATIENCE_S if self._met else FIRST_PATIENCE_S
        return time.monotonic() + wait - began > patience


def token_of(command: str) -> str:
    """The token that the command prints; raises `NoToken`.

    The words of the command are a shell's, but no shell runs it. It may ask its user something.
    """
    try:
        words = shlex.split(command)
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    except (OSError, ValueError, IndexError, subprocess.CalledProcessError) as error:
        raise NoToken(command, str(error)) from error
    token = done.stdout.strip()
    if not token.isascii() or len(token.split()) != 1:
        raise NoToken(command, "what it prints is not one word")
    return token


def _has_expired(response: httpx.Response) -> bool:
    if response.status_code != UNAUTHORIZED:
        return False
    response.read()
    return ApiError.from_response(response).code == "token_expired"


def _json(response: httpx.Response) -> Any:
    response.read()
    try:
        return response.json()
    except ValueError as error:
        raise _not_the_service(response, "JSON") from error


def events_of(response: httpx.Response) -> Iterator[ServerSentEvent]:
    """Yield the server-sent events of an answer as they come; raises `ApiError` if it has none."""
    try:
        # A comment or a delay is told as an event without data, which by the standard is none.
        for event in EventSource(response).iter_sse():
            if event.data:
                yield event
    except SSEError as error:
        raise _not_the_service(response, "stream of events") from error


def _not_the_service(response: httpx.Response, expected: str) -> ApiError:
    message = f"{response.url} is not a compression service: its answer is no {expected}"
    return ApiError(response.status_code, "http_error", None, message)


def _may_pass(response: httpx.Response) -> bool:
    # A conflict does where the server says when: our own first try is still at work.
    waits = response.status_code == CONFLICT and "Retry-After" in response.headers
    return response.status_code in AWAY or waits


def _retry_after(response: httpx.Response) -> float:
    value = response.headers.get("Retry-After", "")
    return min(float(value), LONGEST_PAUSE_S) if value.isdigit() else 0.0
