"""Every request gets an id, is logged once with it, and is counted."""

import logging
import re
import time
from uuid import uuid4

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobstore import logs

REQUEST_ID = "X-Request-Id"

# A caller may choose such an id; anything else would be free text in the log.
_ACCEPTABLE = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Probes come every few seconds and are not worth a line each.
QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
_BOUNDS_S = (0.005, 0.02, 0.1, 0.5, 2, 10, 60)

log = logging.getLogger(__name__)


class RequestMetrics:
    """Counts and times of this process's requests; a time ends at the answer's first byte."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "atmc_http_requests",
            "Requests that were answered.",
            ["method", "route", "status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "atmc_http_request_seconds",
            "Seconds to the first byte of the answer.",
            ["method", "route"],
            buckets=_BOUNDS_S,
            registry=registry,
        )


class RequestLog:
    """Binds an id to the request, the caller's own if it is one, and sends it back."""

    def __init__(self, app: ASGIApp, metrics: RequestMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass every request on, and write down how it was answered."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        logs.begin(request=_request_id(scope))
        began, status, answered = time.perf_counter(), 500, 0.0

        async def noted(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                status, answered = message["status"], time.perf_counter() - began
                MutableHeaders(scope=message)[REQUEST_ID] = str(logs.bound()["request"])
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            self._write_down(scope, status, answered or time.perf_counter() - began)

    def _write_down(self, scope: Scope, status: int, seconds: float) -> None:
        method, route = scope["method"], getattr(scope.get("route"), "path", "none")
        self._metrics.requests.labels(method, route, status).inc()
        self._metrics.seconds.labels(method, route).observe(seconds)
        if route in QUIET and status < 400:
            return
        # The query is left out, because callers put all kinds of things there.
        fields = {"method": method, "path": scope["path"][:200], "status": status}
        # The ids in the path by their names there: job_id is the record's job.
        fields |= {
            name.removesuffix("_id"): value
            for name, value in scope.get("path_params", {}).items()
            if name.endswith("_id")
        }
        log.info("request", extra=fields | {"ms": round(1000 * seconds, 1)})


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get(REQUEST_ID, "")
    return given if _ACCEPTABLE.fullmatch(given) else uuid4().hex
