"""The errors that a call to the service may raise."""

from typing import Any

import httpx


class ApiError(Exception):
    """The service refused: its problem document (RFC 9457) as an exception.

    `status` is the HTTP status, `code` the stable name of the problem, `param` the offending
    field or file (None where there is none), `detail` a sentence for people.
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
        """Read a refusal; one that is no problem document (a proxy's, say) keeps its text."""
        if "json" not in response.headers.get("content-type", ""):
            text = response.text.strip()[:500] or response.reason_phrase
            return cls(response.status_code, "http_error", None, text)
        problem: dict[str, Any] = response.json()
        return cls(
            response.status_code,
            problem.get("code", "http_error"),
            problem.get("param"),
            problem.get("detail") or problem.get("title") or response.reason_phrase,
        )


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
