"""Takes in the name of a file that lies elsewhere: looked at now, fetched later."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar
from sqlalchemy.orm import Session

from api.loops import of_loop
from api.problems import Problem
from api.services import Services
from api.sources.schemas import NewResults, NewSource
from api.uploads.multipart import too_large
from atmc_spec import InvalidInput
from atmc_spec.datasets.layout import parquet_splits
from jobstore import transfers
from jobstore.connections import NotAllowed, Place
from jobstore.quotas import check_incoming
from jobstore.remote import Found, SourceError, look, names
from jobstore.tables import Dataset, Document, Job, Model

T = TypeVar("T")

AT_ONCE = 2
"""So many of a tenant's requests ask other servers at a time; its others wait for their turn."""

_limiters: RunVar[dict[str, anyio.CapacityLimiter]] = RunVar("asking")


async def in_thread_of(tenant: str, act: Callable[[], T]) -> T:
    """Act in a thread that no other request waits for: other servers may take their time."""
    limiters = of_loop(_limiters, dict)
    limiter = limiters.setdefault(tenant, anyio.CapacityLimiter(AT_ONCE))
    return await anyio.to_thread.run_sync(act, limiter=limiter)


@dataclass(frozen=True)
class Looked:
    """What lies at a URI now; `source` is what a row shows of it, `asked` what fetches it."""

    filename: str
    source: Document
    asked: Document
    bytes: int


def look_at(
    services: Services, new: NewSource, *, max_bytes: int, param: str, folders: bool = False
) -> Looked:
    """Return what lies there; it takes as long as its server, some seconds at most.

    Raises the problems `source_...`, `file_too_large` and, of a folder, `malformed_dataset`; and
    `DiskFull`.
    """
    try:
        place = Place.of(new.uri)
        connection = services.connections.find(services.store.tenant, new.connection, place)
        found = look(connection, place, etag=new.etag, version=new.version, folders=folders)
        if found.is_folder:
            parquet_splits(names(place, found))
    except NotAllowed as error:
        raise not_allowed(error, new.uri, param) from error
    except SourceError as error:
        detail = f"{new.uri}: {error.message}."
        raise Problem(error.code, detail, param, _later(error)) from error
    except InvalidInput as error:
        raise Problem(error.code, f"{new.uri}: {error.message}.", param) from error
    total = found.total_bytes
    if total is not None and total > max_bytes:
        raise too_large(f"What lies at {new.uri} has {total} bytes", max_bytes)
    services.disk.check(total or 0)
    return _looked(new, connection.name, place, found)


def _later(error: SourceError) -> dict[str, str]:
    return {"Retry-After": "30"} if error.passes else {}


def _looked(new: NewSource, connection: str, place: Place, found: Found) -> Looked:
    one = None if found.is_folder else found.files[0]
    source = {
        "uri": new.uri,
        "connection": connection,
        "etag": one and one.etag,
        "version": one and one.version,
        "total_bytes": found.total_bytes,
        "fetched_bytes": 0,
        "tries": 0,
        "error": None,
    }
    asked = {
        "uri": new.uri,
        "connection": connection,
        "sha256": new.sha256,
        "found": asdict(found),
    }
    name = place.path.removesuffix("/").rpartition("/")[2] or place.host
    filename = (f"{name}.tar" if found.is_folder else name)[-255:]
    return Looked(filename, source, asked, found.total_bytes or 0)


def begin(
    session: Session, services: Services, looked: Looked, row: Model | Dataset, **more: object
) -> None:
    """Have the row's file fetched; raises `QuotaExceeded`."""
    check_incoming(session, services.terms.max_stored_bytes, looked.bytes)
    transfers.begin(session, row, looked.asked | more, looked.bytes)


def results_of(services: Services, new: NewResults, param: str) -> tuple[str, str]:
    """Return the folder and the connection for results; raises `source_not_allowed`."""
    try:
        place = Place.of(new.uri)
        found = services.connections.find(
            services.store.tenant, new.connection, place, writing=True
        )
    except NotAllowed as error:
        raise not_allowed(error, new.uri, param) from error
    return new.uri.removesuffix("/"), found.name


def deliver(session: Session, job: Job, folder: str, connection: str) -> None:
    """Have the job's files put into a folder of its own, once it has succeeded."""
    uri = f"{folder}/{job.id}"
    job.results = {
        "uri": uri,
        "connection": connection,
        "state": "waiting",
        "tries": 0,
        "error": None,
        "files": [],
        "delivered_at": None,
    }
    transfers.begin(session, job, {"uri": uri, "connection": connection})


def not_allowed(error: NotAllowed, uri: str, param: str) -> Problem:
    """Return the refusal of a URI that no connection of the tenant's has."""
    detail = f"{uri}: {error}. GET /connections lists what may be named; the operator makes others."
    return Problem("source_not_allowed", detail, param)
