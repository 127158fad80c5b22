"""Deletes what has expired, and checks whether the object store and the database agree."""

import logging
from dataclasses import asdict

from jobstore import blobs, idempotency, metrics, retention
from jobstore.database import Database
from jobstore.objects import ObjectStore
from jobstore.retention import Audit
from jobstore.settings import Settings
from jobstore.tenants import list_tenants
from jobstore.terms import Terms

log = logging.getLogger(__name__)


def retain_once(settings: Settings, database: Database, store: ObjectStore) -> Audit:
    """Delete what has expired, then the objects that nothing refers to.

    It may be interrupted at any point, and several processes may run it at once.

    Returns the numbers of objects in the store and in the database that do not match.
    """
    lifetime = {"upload_lifetime_s": settings.upload_lifetime_s}
    with database.read() as session:
        tenants = list_tenants(session)
    forgotten: list[str] = []
    for tenant in tenants:
        with database.write() as session:
            forgotten += retention.expire(session, tenant.id, Terms.of(settings, tenant))
    with database.read() as session:
        strays = retention.find_strays(session, store, **lifetime)
    with database.write() as session:
        idempotency.forget_expired(session)
        metrics.forget_told(session)
        retention.adopt(session, strays.blobs)
    for key in (*forgotten, *strays.keys):
        store.delete(key)
    deleted = _delete_unreferenced(database, store)
    with database.read() as session:
        counts = retention.audit(session, store, **lifetime)
    fault = counts.unreferenced or counts.dangling
    log.log(
        logging.ERROR if fault else logging.INFO,
        "the store and the rows do not agree" if fault else "the store and the rows agree",
        extra={"deleted": len(forgotten) + len(strays.keys) + deleted, **asdict(counts)},
    )
    return counts


def _delete_unreferenced(database: Database, store: ObjectStore) -> int:
    deleted = 0
    while True:
        with database.write() as session:
            batch = blobs.delete_unreferenced(session, store)
        if batch == 0:
            return deleted
        deleted += batch
