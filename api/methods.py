"""The methods a path takes. HEAD goes wherever GET goes, as RFC 9110 asks; FastAPI does not."""

from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


class HeadLikeGet:
    """Has HEAD answered as GET where no route of its own does; the server leaves the body out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass every request on."""
        if scope["type"] == "http" and scope["method"] == "HEAD":
            # The server itself looks at the method of its own scope, which stays HEAD.
            scope = _like_get(scope)
        await self._app(scope, receive, send)


def allowed(scope: Scope) -> list[str]:
    """Return the methods that the path of this request takes, whatever its own method."""
    # The framework's own Allow header names those of one route, but a path may have several.
    return [name for name in _METHODS if _takes(_like_get({**scope, "method": name}))]


def _like_get(scope: Scope) -> Scope:
    as_get = {**scope, "method": "GET"}
    return as_get if scope["method"] == "HEAD" and not _takes(scope) and _takes(as_get) else scope


def _takes(scope: Scope) -> bool:
    return any(route.matches(scope)[0] is Match.FULL for route in scope["app"].routes)
