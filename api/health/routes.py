"""`GET /healthz`, `GET /readyz`."""

import logging
from collections.abc import Callable

from fastapi import APIRouter
from kombu.exceptions import OperationalError
from obstore.exceptions import BaseError as StoreError
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from api.problems import Problem, documented
from api.services import Services, ServicesDep
from jobstore.catalogue import list_entries
from jobstore.wakeups import pending

router = APIRouter(tags=["health"])
log = logging.getLogger(__name__)


class Health(BaseModel):
    """The process answers."""

    status: str = "ok"


@router.get("/healthz", summary="Tell whether the process lives")
def healthz() -> Health:
    """Answer at once, whatever the other parts do."""
    return Health()


@router.get(
    "/readyz",
    summary="Tell whether jobs can be taken in",
    responses=documented("not_ready"),
)
def readyz(services: ServicesDep) -> Health:
    """Ask every part in turn; `param` names the first that is not ready."""
    for part, (check, advice) in CHECKS.items():
        try:
            ready = check(services)
        except (SQLAlchemyError, StoreError, OSError, OperationalError) as error:
            log.warning("%s is not ready: %s", part, error)
            ready = False
        if not ready:
            detail = f"The {part} is not ready: {advice}."
            raise Problem("not_ready", detail, part, headers={"Retry-After": "5"})
    return Health(status="ready")


def _database(services: Services) -> bool:
    with services.database.read() as session:
        list_entries(session, "method")
    return True


def _store(services: Services) -> bool:
    # Absent is an answer, too.
    services.store.exists("readyz")
    return True


def _broker(services: Services) -> bool:
    return pending(services.celery) >= 0


def _catalogue(services: Services) -> bool:
    with services.database.read() as session:
        return bool(list_entries(session, "method"))


CHECKS: dict[str, tuple[Callable[[Services], bool], str]] = {
    "database": (_database, "see ATMC_DATABASE_URL, and migrate with python -m launcher.migrate"),
    "store": (_store, "see ATMC_STORE_URL"),
    "broker": (_broker, "see ATMC_BROKER_URL"),
    "catalogue": (_catalogue, "no worker has started yet"),
}
