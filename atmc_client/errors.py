"""The errors that a call to the service may raise."""

from typing import Any

import httpx


class ApiError(Exception):
    """The service refused: its problem document (RFC 9457) as an exception.

    Its class is that of the status. A code is stable, and the list of all is `errors.md` in the
    documentation.

    Example:
        ```python
        try:
            client.submit("model.safetensors", "lenet", "mnist.npz", spec)
        except InvalidRequest as error:
            print(error.code, error.param)  # k_out_of_range target.k
        ```

    Attributes:
        status: the HTTP status.
        code: the name of the problem.
        param: the offending field or file; None where there is none.
        detail: a sentence for people, with what to do next.
    """

    def __init__(self, status: int, code: str, param: str | None, detail: str) -> None:
        where = f" ({param})" if param else ""
        super().__init__(f"{code}{where}: {detail}")
        self.status = status
        self.code = code
        self.param = param
        self.detail = detail

    @classmethod
    def from_response(cls, response: httpx.Response) -> "ApiError":
        """Read a refusal as the class of its status; one of a proxy's keeps its text."""
        kind = _KINDS.get(response.status_code, ServerError if response.is_server_error else cls)
        if "json" not in response.headers.get("content-type", ""):
            text = response.text.strip()[:500] or response.reason_phrase
            return kind(response.status_code, "http_error", None, text)
        problem: dict[str, Any] = response.json()
        return kind(
            response.status_code,
            problem.get("code", "http_error"),
            problem.get("param"),
            problem.get("detail") or problem.get("title") or response.reason_phrase,
        )


class InvalidRequest(ApiError):
    """The request is malformed, or holds what cannot be or is too large: `param` says what.

    Of the statuses 400, 405, 412, 413, 415, 416, 422 and 460.
    """


class NotAuthorized(ApiError):
    """The key or token does not hold, or not for this (401, 403)."""


class NotFound(ApiError):
    """There is no such thing, or it is another tenant's (404)."""


class Conflict(ApiError):
    """The thing is in a state in which this cannot be done (409)."""


class RateLimited(ApiError):
    """Too many requests, or more than the tenant's quota (429), after patience has run out."""


class ServerError(ApiError):
    """The service could not, through no fault of the request's (5xx)."""


_KINDS: dict[int, type[ApiError]] = {
    400: InvalidRequest,
    401: NotAuthorized,
    403: NotAuthorized,
    404: NotFound,
    409: Conflict,
    422: InvalidRequest,
    429: RateLimited,
} | dict.fromkeys((405, 412, 413, 415, 416, 460), InvalidRequest)


class ServerUnreachable(Exception):
    """No answer from the service; the message says where it was sought and what to do."""

    def __init__(self, url: str, cause: Exception) -> None:
        reason = str(cause) or type(cause).__name__
        super().__init__(
            f"no answer from {url} ({reason}): start a service with `atmc serve`, "
            "or name a running one with --server or ATMC_SERVER"
        )


class DigestMismatch(Exception):
    """A downloaded file is not the one that the service stored; it was not kept."""


class NoToken(Exception):
    """The command that prints tokens printed none."""

    def __init__(self, command: str, reason: str) -> None:
        super().__init__(f"no token from the token command ({command}): {reason}")
