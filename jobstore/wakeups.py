"""The broker's one job: to wake a worker. What is to be done stands in the database.

A wake-up has no content, may be lost, doubled or late: a woken worker claims rows until nothing is
left, and the sweep sends another one for rows that wait.
"""

import logging

from celery import Celery
from kombu.exceptions import OperationalError
from redis import RedisError

from jobstore.settings import Settings
from jobstore.workers import queue_of

WAKE_TASK = "worker.wake"

_CONNECT_TIMEOUT_S = 2.0

log = logging.getLogger(__name__)


def make_celery(settings: Settings) -> Celery:
    """Return the Celery app that the API and the keeper send with and the worker runs."""
    app = Celery("atmc", broker=settings.broker_url, set_as_current=False)
    app.conf.update(
        task_default_queue=queue_of(None, 0),
        task_ignore_result=True,
        # Early: Redis would deliver a long task twice, and the row, not the message, is the job.
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        # Prefork's processes are daemonic and may not have children; the supervisor needs one.
        worker_pool="threads",
        worker_concurrency=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "socket_connect_timeout": _CONNECT_TIMEOUT_S,
            "socket_timeout": _CONNECT_TIMEOUT_S * 5,
        },
        task_publish_retry=False,
        enable_utc=True,
    )
    return app


def wake(celery: Celery, queue: str) -> bool:
    """Send a wake-up; returns False, with a warning in the log, when the broker is away.

    `queue` is `jobstore.workers.queue_of` what the job asks for. Call it after the commit, never
    before: an early worker would find nothing. Without a broker it takes some seconds (the Redis
    client tries again), so an HTTP answer should not wait for it.
    """
    try:
        celery.send_task(WAKE_TASK, queue=queue)
    except (OperationalError, RedisError) as error:
        log.warning("wake-up not sent, the sweep will send another: %s", error)
        return False
    return True


def pending(celery: Celery, queue: str) -> int:
    """Return how many wake-ups wait in a queue; raises kombu's OperationalError or a RedisError."""
    with celery.connection_for_write() as connection:
        # Not passive: to Redis an empty queue is one that does not exist.
        declared = connection.default_channel.queue_declare(queue=queue)
    return int(declared.message_count)
