"""Who was refused a call about keys, tenants or the audit log: that goes into the log, too."""

import logging
import threading
import time

from fastapi import Request
from fastapi.routing import APIRoute

from api.auth import UNKNOWN
from api.origin import origin_of
from api.problems import Problem
from jobstore import audit
from jobstore.database import Database
from jobstore.keys import Holder
from jobstore.logs import brief
from jobstore.retry import TRANSIENT

# The calls by their tag; the others are logged as every request is.
_WATCHED = {"keys": "key", "tenants": "tenant", "audit": "audit"}
_REFUSALS = frozenset({401, 403, 404})
_EVERY_S = 60.0
_MOST_REMEMBERED = 1024

_STATE = "atmc_holder"

log = logging.getLogger(__name__)


def remember(request: Request, holder: Holder) -> None:
    """Keep who was let in, in case they are refused."""
    request.scope["state"][_STATE] = holder


def is_watched(request: Request, problem: Problem) -> bool:
    """Tell whether the refusal goes into the audit log."""
    return problem.status in _REFUSALS and _noun(request) is not None


def _noun(request: Request) -> str | None:
    route = request.scope.get("route")
    tags = route.tags if isinstance(route, APIRoute) else []
    return next((_WATCHED[str(tag)] for tag in tags if tag in _WATCHED), None)


class Refusals:
    """Writes refusals down; of the same ones again one a minute, with how often they came.

    Else whoever has no key could fill the database with attempts.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        # When one like it was written down, and how often it came since.
        self._written: dict[tuple[str, ...], tuple[float, int]] = {}

    def note(self, request: Request, problem: Problem) -> None:
        """Write the refusal down; where that fails the log of the process says so."""
        holder: Holder | None = request.scope["state"].get(_STATE)
        actor = holder.actor if holder else UNKNOWN
        action = f"{_noun(request)}.{request.scope['route'].name.rstrip('_')}"
        repeated = self._repeated((actor, action, problem.code))
        if repeated is None:
            return
        said = {"code": problem.code} | ({"repeated": repeated} if repeated else {})
        asked = "".join(request.path_params.values())
        tenant = holder.tenant.id if holder else audit.NOBODYS
        try:
            with self._database.of(None, origin_of(request, actor)).write() as session:
                audit.record(
                    session,
                    action,
                    "".join(c for c in asked if c.isprintable()) or None,
                    tenant=tenant,
                    outcome=audit.REFUSED,
                    **said,
                )
        except TRANSIENT as error:
            log.warning("a refusal is not in the audit log: %s", brief(error))

    def _repeated(self, what: tuple[str, ...]) -> int | None:
        """Return how often it came since it was written down; None if that was just now."""
        now = time.monotonic()
        with self._lock:
            written, count = self._written.pop(what, (-_EVERY_S, 0))
            due = now - written >= _EVERY_S
            self._written[what] = (now, 0) if due else (written, count + 1)
            while len(self._written) > _MOST_REMEMBERED:
                del self._written[next(iter(self._written))]
        return count if due else None
