"""A span for every request, while traces are on: it continues the caller's trace, or begins one.

FastAPI and Starlette could tell of requests by themselves, but they tell paths, queries, callers'
addresses and agents, too.
"""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.requests import QUIET
from jobstore import logs, traces

# By OpenTelemetry's conventions any other method, which may be any word, is told as this one.
_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
_OTHER = "_OTHER"
# All of it is kept with a job; so much of it must be passed on.
_MOST_STATE = 512


class RequestTrace:
    """Tells of each request its method, route and status; its log lines have the trace's id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass every request on within a span of its own."""
        if scope["type"] != "http" or scope["path"] in QUIET:
            return await self._app(scope, receive, send)
        method = scope["method"] if scope["method"] in _METHODS else _OTHER
        name = "HTTP" if method == _OTHER else method
        span = traces.begin(
            name,
            parent=_sent(scope),
            kind="server",
            attributes={
                "http.request.method": method,
                "url.scheme": scope["scheme"],
                "atmc.request.id": str(logs.bound().get("request", "")),
            },
        )
        logs.about(trace_id=span.trace_id)

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                _describe(span, name, scope, message["status"])
            await send(message)

        with traces.during(span):
            try:
                await self._app(scope, receive, noted)
            except Exception:
                # The answer to it is made outside of here.
                _describe(span, name, scope, 500)
                raise


def _sent(scope: Scope) -> traces.Carrier:
    headers = Headers(scope=scope)
    sent = {"traceparent": headers.get("traceparent", "")}
    if len(state := headers.get("tracestate", "")) <= _MOST_STATE:
        sent["tracestate"] = state
    return sent


def _describe(span: traces.Span, name: str, scope: Scope, status: int) -> None:
    span.annotate({"http.response.status_code": status})
    route = getattr(scope.get("route"), "path", None)
    # A path that leads nowhere is the caller's own words.
    if route is not None:
        span.annotate({"http.route": route})
        span.rename(f"{name} {route}")
    if status < 400 and "job_id" in scope.get("path_params", {}):
        span.annotate({"atmc.job.id": scope["path_params"]["job_id"]})
    if status >= 500:
        span.fail(str(status))
