"""Turns requests away while they would wait too long, so that what is answered is in time.

Offered more than it bears, a process that takes everything in answers everything late: the queue
grows until its callers have given up. So an empty task goes through the queue of the threads, one
at a time, as every request has to: while it is not back in time, requests are refused at once,
which costs next to nothing. That counts whatever holds them up: threads that are all at work, the
interpreter's lock, and the event loop itself.
"""

import asyncio
import sys
import time

import anyio.to_thread
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import Problem

MAX_WAIT_S = 0.2
"""So long one may wait for a thread before requests are turned away; a creation asks for two."""

# How long a thread may go on while another wants the interpreter. By default it is ten times that,
# and the event loop waits for it at every turn that it takes.
_SWITCH_S = 0.0005
# Between two looks.
_PAUSE_S = 0.02

# Whoever looks after the process has to hear of it above all when there is much to do.
_ALWAYS = frozenset({"/healthz", "/readyz", "/metrics", "/", "/page.json"})
# The page's files lie in memory; a browser does not ask again for a script that was refused.
_FILES = "/page/"


def limit_threads(threads: int) -> None:
    """Have the event loop that runs take so many threads, and soon get its turn among them.

    All take turns at one interpreter, so that with many of them each takes the longer, and the loop
    most of all, which answers everybody.
    """
    anyio.to_thread.current_default_thread_limiter().total_tokens = threads
    sys.setswitchinterval(_SWITCH_S)


class Admission:
    """Lets requests in, or answers 503 `overloaded`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._look: asyncio.Task[None] | None = None
        # When the look that is out began, or else the last one ended.
        self._since = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, unless it would wait for too long."""
        if scope["type"] != "http" or _is_let_in(scope["path"]):
            await self._app(scope, receive, send)
        # Where a thread is free, turning others away would help nobody: it is the process that
        # waits, for a core. Who waits for a job's next change has no thread meanwhile.
        elif self._is_late() and _all_threads_work():
            await _refusal().response()(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _is_late(self) -> bool:
        """Tell whether the look that is out should be back, and have a new one begin if none is."""
        passed = time.monotonic() - self._since
        if self._look is not None:
            return passed > MAX_WAIT_S
        if passed > _PAUSE_S:
            self._since = time.monotonic()
            self._look = asyncio.create_task(self._wait_for_thread())
        return False

    async def _wait_for_thread(self) -> None:
        try:
            await run_in_threadpool(_nothing)
        finally:
            self._look, self._since = None, time.monotonic()


def _all_threads_work() -> bool:
    return anyio.to_thread.current_default_thread_limiter().available_tokens <= 0


def _nothing() -> None:
    pass


def _refusal() -> Problem:
    detail = "Requests wait too long for their turn here; send this again."
    return Problem("overloaded", detail, headers={"Retry-After": "1"})


def _is_let_in(path: str) -> bool:
    return path in _ALWAYS or path.startswith(_FILES)
