"""`python -m worker.sweep`: queues again what dead workers held, and wakes workers for what waits.

Every `ATMC_RETENTION_S` seconds it also drops what has expired (`worker.retention`).
Any number may run; a service needs one. It is what makes a lost message or a killed worker cost
seconds and not the job. Beside it, it sends the webhooks and deletes abandoned uploads.
"""

import logging
import signal
import tempfile
import threading
import time
from pathlib import Path

from celery import Celery
from kombu.exceptions import OperationalError as BrokerError
from redis import RedisError

from jobstore import incoming, leases
from jobstore.database import Database, make_engine
from jobstore.destinations import Destinations
from jobstore.logs import configure_logs
from jobstore.objects import ObjectStore
from jobstore.settings import Settings
from jobstore.wakeups import make_celery, pending, wake
from worker.logs import brief
from worker.posting import Poster
from worker.retention import retain_once
from worker.retry import TRANSIENT
from worker.webhooks import Sender

log = logging.getLogger(__name__)

SWEPT = Path(tempfile.gettempdir(), "atmc-swept")
"""Touched whenever a sweep was done, for a health check to look at."""

_MOST_WAKE_UPS = 100
_LONGEST_DELAY_S = 60.0


def main() -> None:
    """Sweep every `ATMC_SWEEP_S` seconds until SIGTERM or Ctrl-C."""
    settings = Settings()
    configure_logs(settings.log_format)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    run(settings, stop)


def run(settings: Settings, stop: threading.Event) -> None:
    """Sweep and send webhooks until `stop` is set."""
    database = Database(make_engine(settings))
    poster = Poster(Destinations.from_settings(settings))
    sender = threading.Thread(target=Sender(database, poster, stop).run, name="webhooks")
    sender.start()
    try:
        _sweep(settings, database, stop)
    finally:
        # If either fails the process ends, so that whoever started it knows.
        stop.set()
        sender.join()


def _sweep(settings: Settings, database: Database, stop: threading.Event) -> None:
    """Sweep until `stop` is set; while a server is away, ever more rarely."""
    store = ObjectStore.from_settings(settings)
    celery = make_celery(settings)
    delay_s, retain_at = settings.sweep_s, 0.0
    while not stop.wait(delay_s):
        try:
            sweep_once(database, celery)
            SWEPT.touch()
            sweep_uploads(database, store)
            if time.monotonic() >= retain_at:
                retain_once(settings, database, store)
                retain_at = time.monotonic() + settings.retention_s
            delay_s = settings.sweep_s
        except (BrokerError, RedisError, *TRANSIENT) as error:
            delay_s = min(2 * delay_s, max(_LONGEST_DELAY_S, settings.sweep_s))
            log.warning("sweep failed: %s", brief(error), extra={"next_in_s": delay_s})


def sweep_once(database: Database, celery: Celery) -> None:
    """Sweep, then send as many wake-ups as jobs wait, less those already in the broker."""
    with database.write() as session:
        swept = leases.sweep(session)
    for state in ("requeued", "failed", "cancelled"):
        for job_id in getattr(swept, state):
            log.warning("worker lost", extra={"job": job_id, "now": state})
    for queue, waiting in swept.waiting.items():
        # Counted, because with all workers busy for hours the messages would pile up.
        for _ in range(min(waiting, _MOST_WAKE_UPS) - pending(celery, queue)):
            wake(celery, queue)


def sweep_uploads(database: Database, store: ObjectStore) -> None:
    """Delete the uploads whose time has run out, and what has arrived of them."""
    with database.write() as session:
        keys = incoming.forget_expired(session)
    for key in keys:
        store.delete(key)


if __name__ == "__main__":
    main()
