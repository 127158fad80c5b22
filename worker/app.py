"""The Celery worker: `celery -A worker.app worker`.

A message only says that there may be something to do; the worker then claims jobs from the database
until none is left. Messages are acknowledged early, because a broker would deliver a task that
takes long a second time. The pool is a single thread, because the processes of Celery's prefork
pool may not have children.
"""

import logging
import os
import socket
import threading
import time
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import torch
from celery import signals

from atmc_core.job.catalogue import catalogue
from jobstore import leases, traces
from jobstore.catalogue import CatalogueEntry, publish
from jobstore.database import Database, make_engine, migrate
from jobstore.logs import configure_logs
from jobstore.objects import ObjectStore
from jobstore.private import keep_private
from jobstore.retry import GaveUp, retry
from jobstore.settings import Settings
from jobstore.tables import Job
from jobstore.wakeups import WAKE_TASK, make_celery, wake
from jobstore.workers import Offer
from worker.cache import Tending
from worker.folder import remove_abandoned
from worker.gpus import GpuReport
from worker.presence import Presence
from worker.signing import Signer
from worker.supervisor import Supervisor, runs_folder

log = logging.getLogger(__name__)

# The worker waits this long for a database that is starting, too. Then it ends with an error.
_PATIENCE_AT_START_S = 120.0

settings = Settings()
device = settings.device
if device == "auto":
    device = "cuda" if torch.cuda.is_available() else "cpu"
offer = Offer(gpus=torch.cuda.device_count() if device == "cuda" else 0)
app = make_celery(settings)
app.amqp.queues.select(offer.queues())


class Worker:
    """This process as an owner of jobs.

    Making one migrates the database, tells the API which specs the worker accepts and by which key
    its results are known, and removes the run folders that a killed worker left.
    """

    def __init__(self, settings: Settings, device: str, offer: Offer) -> None:
        """Raises ValueError if `device` is "cuda" and there is no GPU, or for a key that signs
        nothing, `GaveUp`, and `NotHeld`.
        """
        if device == "cuda" and not offer.gpus:
            raise ValueError("ATMC_DEVICE is cuda, and torch sees no GPU")
        signer = Signer.from_settings(settings)
        self._published: list[CatalogueEntry] = [*catalogue()]
        if signer is not None:
            self._published.append(signer.published)
        engine = make_engine(settings)
        self.settings, self.offer = settings, offer
        self.database = Database(engine)
        self.owner = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        self.shutdown = threading.Event()
        self.presence = Presence(self.database, self.owner, offer, every_s=settings.heartbeat_s)
        remove_abandoned(runs_folder(settings))
        # Before anything is announced: it finds out whether children can be shut in.
        self.supervisor = Supervisor(
            settings,
            self.database,
            ObjectStore.from_settings(settings),
            device=device,
            shutdown=self.shutdown,
            signer=signer,
        )
        deadline = time.monotonic() + _PATIENCE_AT_START_S
        retry(self._announce, what="the worker's start", until=lambda: time.monotonic() > deadline)

    def _announce(self) -> None:
        migrate(self.database.engine)
        with self.database.write() as session:
            publish(session, self._published)

    def work_off(self) -> None:
        """Claim and run jobs until none is left, no room for one, or until `shutdown` is set."""
        while not self.shutdown.is_set() and self.supervisor.has_room():
            self.supervisor.children.warm_up()
            try:
                claimed = retry(self._claim, what="claiming", until=self.shutdown.is_set)
            except GaveUp:
                return
            if claimed is None:
                return
            self.supervisor.run(*claimed)

    def _claim(self) -> tuple[Job, leases.Attempt, datetime] | None:
        began = datetime.now(UTC)
        with self.database.write() as session:
            leases.release_unknown(session, self.owner)
            claimed = leases.claim(
                session,
                self.owner,
                lease_s=self.settings.lease_s,
                offer=self.offer,
                max_running_jobs=self.settings.max_running_jobs,
            )
        return None if claimed is None else (*claimed, began)


_worker: Worker | None = None


def _start(**_: Any) -> None:
    global _worker
    keep_private()
    # Celery sets up logging only later, so a start that fails would not be logged.
    configure_logs(settings.log_format)
    traces.configure("worker")
    try:
        _worker = Worker(settings, device, offer)
        _worker.presence.begin()
    except Exception as error:
        # Celery would only log an exception of a signal's receiver, and go on.
        log.exception("the worker cannot start")
        raise SystemExit(1) from error
    GpuReport(_worker.database, _worker.shutdown).begin()
    Tending(_worker.supervisor.cache, _worker.database, _worker.shutdown).begin()
    extra = {"owner": _worker.owner, "device": device, "gpus": offer.gpus}
    log.info("worker starts; its children's %s", _worker.supervisor.shelter.held, extra=extra)


def _look_for_work(**_: Any) -> None:
    # Jobs may be waiting whose messages were lost.
    assert _worker is not None
    _worker.supervisor.children.warm_up()
    # Only workers with the same devices listen to the last queue.
    wake(app, offer.queues()[-1])


def _work_off() -> None:
    assert _worker is not None  # Celery sends worker_init before any task
    _worker.work_off()


def _give_back(**_: Any) -> None:
    # Celery's warm shutdown waits for the task, which may run for hours, so the task is stopped.
    log.info("worker ends; a running job is given back")
    if _worker is not None:
        _worker.shutdown.set()


def _withdraw(**_: Any) -> None:
    if _worker is not None:
        _worker.presence.end()
        # It would notice the worker's end by itself, but not before it has loaded the method.
        _worker.supervisor.children.close()
    traces.shut_down()


def _set_up_logs(**_: Any) -> None:
    configure_logs(settings.log_format)


app.task(_work_off, name=WAKE_TASK)
signals.setup_logging.connect(_set_up_logs)
signals.worker_init.connect(_start)
signals.worker_ready.connect(_look_for_work)
signals.worker_shutting_down.connect(_give_back)
signals.worker_shutdown.connect(_withdraw)
