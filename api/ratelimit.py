"""The headers that tell a caller how much it may still ask for, and until when.

`RateLimit-Policy` and `RateLimit` are those of the IETF's draft "RateLimit header fields for HTTP".
"""

from datetime import UTC, datetime, timedelta

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import Problem
from jobstore.errors import QuotaExceeded
from jobstore.rates import WINDOW_S, Rate

POLICY, LIMIT = "RateLimit-Policy", "RateLimit"

KEY_EXPIRES = "Key-Expires-At"
"""Of a key that will expire soon: when it will (RFC 3339)."""

_STATE, _EXPIRES = "atmc_rate", "atmc_expires"
# After this long a job may have been taken or something deleted, so that another try is worth it.
_QUOTA_RETRY_S = {"queued-jobs": 30, "running-sweeps": 30, "stored-bytes": 600}
_ADVICE = {
    "running-sweeps": "wait until some of yours have ended, or cancel them",
    "queued-jobs": "wait until some of yours have run, or cancel them",
    "stored-bytes": "delete jobs, models or data sets that you do not need",
}


def remember(scope: Scope, rate: Rate) -> None:
    """Put the rate into the headers of the answer; raises `rate_limited` if it is exceeded."""
    scope["state"][_STATE] = rate
    if rate.exceeded:
        detail = f"More than {rate.limit} requests within {WINDOW_S} s; wait {rate.reset_s} s."
        raise Problem("rate_limited", detail, headers={"Retry-After": str(rate.reset_s)})


def remember_expiry(scope: Scope, expires_at: datetime, within_s: float) -> None:
    """Put into the headers of the answer when the key expires, if that is soon."""
    if expires_at - datetime.now(UTC) <= timedelta(seconds=within_s):
        scope["state"][_EXPIRES] = expires_at


def quota_exceeded(error: QuotaExceeded) -> Problem:
    """Return the refusal of what would go past a tenant's quota."""
    headers = {
        "Retry-After": str(_QUOTA_RETRY_S[error.kind]),
        POLICY: f'"{error.kind}";q={error.limit}',
        LIMIT: f'"{error.kind}";r={error.remaining}',
    }
    detail = f"Your quota of {error.kind} is {error.limit}: {_ADVICE[error.kind]}."
    return Problem("quota_exceeded", detail, headers=headers)


class RateLimitHeaders:
    """Adds the headers to the answers whose requests were counted."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass every request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                _add(MutableHeaders(scope=message), state.get(_STATE), state.get(_EXPIRES))
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _add(headers: MutableHeaders, rate: Rate | None, expires_at: datetime | None) -> None:
    if rate is not None:
        headers.append(POLICY, f'"requests";q={rate.limit};w={WINDOW_S}')
        headers.append(LIMIT, f'"requests";r={rate.remaining};t={rate.reset_s}')
    if expires_at is not None:
        headers[KEY_EXPIRES] = expires_at.isoformat(timespec="seconds")
