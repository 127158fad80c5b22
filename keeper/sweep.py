"""Queues the jobs of dead workers again, wakes workers, deletes old uploads, seals the audit log.

Every `ATMC_RETENTION_S` seconds it also deletes what has expired (`keeper.retention`).
"""

import logging
import tempfile
import threading
import time
from pathlib import Path

from celery import Celery
from kombu.exceptions import OperationalError as BrokerError
from redis import RedisError

from jobstore import incoming, leases
from jobstore.database import Database
from jobstore.logs import brief
from jobstore.objects import ObjectStore
from jobstore.retry import TRANSIENT
from jobstore.settings import Settings
from jobstore.wakeups import pending, wake
from keeper.audit import retain_audit, seal_all
from keeper.reminders import remind_of_keys
from keeper.retention import retain_once

log = logging.getLogger(__name__)

SWEPT = Path(tempfile.gettempdir(), "atmc-swept")
"""Every sweep touches this file; the container's health check looks at the file's age."""

# A sweep leaves at most this many messages in a queue.
_MOST_WAKE_UPS = 100
# The longest time between two sweeps while they fail.
_LONGEST_DELAY_S = 60.0


def sweep_for_ever(
    settings: Settings,
    database: Database,
    store: ObjectStore,
    celery: Celery,
    stop: threading.Event,
) -> None:
    """Sweep every `ATMC_SWEEP_S` seconds until `stop` is set; less often while a server is down."""
    delay_s, retain_at = settings.sweep_s, 0.0
    while not stop.wait(delay_s):
        try:
            sweep_once(database, celery)
            SWEPT.touch()
            sweep_uploads(database, store)
            seal_all(database)
            if time.monotonic() >= retain_at:
                retain_once(settings, database, store)
                retain_audit(database, settings.keep_audit_s)
                remind_of_keys(database, settings.key_reminder_s)
                retain_at = time.monotonic() + settings.retention_s
            delay_s = settings.sweep_s
        except (BrokerError, RedisError, *TRANSIENT) as error:
            delay_s = min(2 * delay_s, max(_LONGEST_DELAY_S, settings.sweep_s))
            log.warning("sweep failed: %s", brief(error), extra={"next_in_s": delay_s})


def sweep_once(database: Database, celery: Celery) -> None:
    """Sweep, then send wake-ups so that the broker has one for each waiting job."""
    with database.write() as session:
        swept = leases.sweep(session)
    for state in ("requeued", "failed", "cancelled"):
        for job_id in getattr(swept, state):
            log.warning("worker lost", extra={"job": job_id, "now": state})
    for queue, waiting in swept.waiting.items():
        # Messages that are still in the broker count, because otherwise they would pile up while
        # all workers are busy.
        for _ in range(min(waiting, _MOST_WAKE_UPS) - pending(celery, queue)):
            wake(celery, queue)


def sweep_uploads(database: Database, store: ObjectStore) -> None:
    """Delete the unfinished uploads that have expired, with the parts that were stored."""
    with database.write() as session:
        keys = incoming.forget_expired(session)
    for key in keys:
        store.delete(key)
