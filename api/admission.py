"""Turns requests away while those before them wait too long, so that what is answered is in time.

Offered more than it bears, a process that takes everything in answers everything late: the queue
grows until its callers have given up. So the oldest request that waits for its turn tells how long
a new one would; past `MAX_WAIT_S` the new one is refused at once, which costs next to nothing.
"""

import time
from collections import deque

from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import Problem

MAX_WAIT_S = 0.5
"""The longest that a request may wait for its turn before others are turned away."""

# Whoever looks after the process has to hear of it above all when there is much to do.
_ALWAYS = frozenset({"/healthz", "/readyz", "/metrics", "/", "/page.json"})
# The page's files lie in memory; a browser does not ask again for a script that was refused.
_FILES = "/page/"
_STATE = "atmc_turn"


class Turn:
    """A request's place among those that wait; its turn has come when its thread begins."""

    __slots__ = ("_arrived", "waits")

    def __init__(self) -> None:
        self._arrived = time.monotonic()
        self.waits = True

    def waited_s(self) -> float:
        """Return for how long it has waited."""
        return time.monotonic() - self._arrived


def begin(scope: Scope) -> None:
    """Say that the request's turn has come; any thread may say so."""
    turn: Turn | None = scope["state"].get(_STATE)
    if turn is not None:
        turn.waits = False


class Admission:
    """Lets requests in, or answers 503 `overloaded`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._turns: deque[Turn] = deque()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, unless the oldest that waits has waited too long."""
        if scope["type"] != "http" or _is_let_in(scope["path"]):
            return await self._app(scope, receive, send)
        while self._turns and not self._turns[0].waits:
            self._turns.popleft()
        if self._turns and self._turns[0].waited_s() > MAX_WAIT_S:
            return await _refusal().response()(scope, receive, send)
        turn = Turn()
        self._turns.append(turn)
        scope.setdefault("state", {})[_STATE] = turn
        try:
            await self._app(scope, receive, send)
        finally:
            turn.waits = False


def _refusal() -> Problem:
    detail = f"Requests wait longer than {MAX_WAIT_S:g} s for their turn here; send this again."
    return Problem("overloaded", detail, headers={"Retry-After": "1"})


def _is_let_in(path: str) -> bool:
    return path in _ALWAYS or path.startswith(_FILES)
