"""`GET /healthz`, `GET /readyz`."""

import logging
from collections.abc import Callable

from obstore.exceptions import BaseError as StoreError
from pydantic import BaseModel
from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy.exc import SQLAlchemyError

from api.problems import Problem, documented
from api.router import Router
from api.services import ProcessDep, Services
from jobstore.catalogue import list_entries
from jobstore.errors import DiskFull

router = Router(tags=["health"])
BROKER_TIMEOUT_S = 2

log = logging.getLogger(__name__)


class Health(BaseModel):
    """The process answers."""

    status: str = "ok"


@router.get("/healthz", summary="Tell whether the process lives")
async def healthz() -> Health:
    """Answer at once, whatever the other parts do."""
    return Health()


@router.get(
    "/readyz",
    summary="Tell whether jobs can be taken in",
    responses=documented("not_ready"),
)
def readyz(services: ProcessDep) -> Health:
    """Ask every part in turn; `param` names the first that is not ready."""
    for part, (check, advice) in CHECKS.items():
        try:
            ready = check(services)
        except (SQLAlchemyError, StoreError, OSError, RedisError) as error:
            log.warning("%s is not ready: %s", part, error)
            ready = False
        if not ready:
            detail = f"The {part} is not ready: {advice}."
            raise Problem("not_ready", detail, part, headers={"Retry-After": "5"})
    return Health(status="ready")


def _process(services: Services) -> bool:
    return not services.leaving.is_set()


def _database(services: Services) -> bool:
    with services.database.read() as session:
        list_entries(session, "method")
    return True


def _store(services: Services) -> bool:
    # Absent is an answer, too.
    services.store.exists("readyz")
    return True


def _broker(services: Services) -> bool:
    # Celery's connection would try again for seconds, and a probe does not wait that long.
    with Redis.from_url(
        services.settings.broker_url,
        socket_connect_timeout=BROKER_TIMEOUT_S,
        socket_timeout=BROKER_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    ) as client:
        return bool(client.ping())


def _disk(services: Services) -> bool:
    try:
        services.disk.check()
    except DiskFull as error:
        log.warning("a disk is full: %s", error)
        return False
    return True


def _catalogue(services: Services) -> bool:
    with services.database.read() as session:
        return bool(list_entries(session, "method"))


CHECKS: dict[str, tuple[Callable[[Services], bool], str]] = {
    "process": (_process, "it is about to end, and others answer in its place"),
    "database": (_database, "see ATMC_DATABASE_URL, and migrate with python -m launcher.migrate"),
    "store": (_store, "see ATMC_STORE_URL"),
    "broker": (_broker, "see ATMC_BROKER_URL"),
    "disk": (_disk, "make room where ATMC_HOME is; see ATMC_RESERVED_BYTES"),
    "catalogue": (_catalogue, "no worker has started yet"),
}
