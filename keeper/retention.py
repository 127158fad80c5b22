"""Deletes what has expired, and checks whether the object store and the database agree."""

import logging
from dataclasses import asdict

from jobstore import blobs, idempotency, metrics, retention, stocktaking
from jobstore.database import Database
from jobstore.objects import ObjectStore
from jobstore.settings import Settings
from jobstore.stocktaking import Audit
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
        forgotten += _expire(database, tenant.id, Terms.of(settings, tenant))
        with database.write() as session:
            blobs.count_stored(session, tenant.id)
    with database.read() as session:
        strays = stocktaking.find_strays(session, store, **lifetime)
    more = True
    while more:
        with database.write() as session:
            more = idempotency.forget_expired(session)
    with database.write() as session:
        metrics.forget_told(session)
        stocktaking.adopt(session, strays.blobs)
    for key in (*forgotten, *strays.keys):
        store.delete(key)
    deleted = _delete_unreferenced(database, store)
    with database.read() as session:
        counts = stocktaking.audit(session, store, **lifetime)
    fault = counts.unreferenced or counts.dangling
    log.log(
        logging.ERROR if fault else logging.INFO,
        "the store and the rows do not agree" if fault else "the store and the rows agree",
        extra={"deleted": len(forgotten) + len(strays.keys) + deleted, **asdict(counts)},
    )
    return counts


def _expire(database: Database, tenant: str, terms: Terms) -> list[str]:
    keys, more = list[str](), True
    while more:
        with database.write() as session:
            expired = retention.expire(session, tenant, terms)
        keys += expired.checkpoint_keys
        more = expired.more
    return keys


def _delete_unreferenced(database: Database, store: ObjectStore) -> int:
    """Walk through all blobs, some at a time, so that no transaction is long."""
    deleted, place = 0, blobs.START
    while True:
        with database.read() as session:
            step = blobs.walk_on(session, place)
        if not step:
            return deleted
        with database.write() as session:
            deleted += blobs.delete_unreferenced(session, store, step)
        place = step[-1]
