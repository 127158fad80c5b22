"""Watches over an attempt in a thread of its own: renews the lease, and ends the child early.

The supervisor's main thread also waits for the object store, and neither renewing the lease nor a
cancel may wait for that.
"""

import logging
import threading
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from jobstore import leases
from jobstore.database import Database
from jobstore.disk import Disk, taken_by
from jobstore.errors import DiskFull, LeaseLost
from jobstore.leases import Attempt, LeaseState
from jobstore.logs import brief
from jobstore.settings import Settings
from worker.memory import memory_limit
from worker.process import ChildProcess

log = logging.getLogger(__name__)

_POLL_S = 0.5


class StopReason(StrEnum):
    """The reason why an attempt ends before its child is done."""

    CANCELLED = "cancelled"
    TIME_LIMIT = "time_limit"
    OUT_OF_MEMORY = "out_of_memory"
    OUT_OF_DISK = "out_of_disk"
    LEASE_LOST = "lease_lost"
    SHUTDOWN = "shutdown"


class Guard:
    """Renews the lease every heartbeat, and ends the child when there is a reason to.

    It is a context manager and watches inside the `with` block. Once `stopped` is set, `reason`
    tells why. After that, `reason` can only change to a lost lease.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        attempt: Attempt,
        *,
        run_seconds: float,
        time_limit_s: float,
        shutdown: threading.Event,
        folder: Path,
        disk_limit: int,
        make_room: Callable[[], None],
    ) -> None:
        """`run_seconds` is the time that the job has run in earlier attempts.

        `disk_limit` are the bytes that the run's `folder` may take; `make_room` drops what takes
        room on the disk and nobody needs.
        """
        self.stopped = threading.Event()
        self.reason: StopReason | None = None
        self._settings = settings
        self._database = database
        self._attempt = attempt
        self._started = time.monotonic() - run_seconds
        self._time_limit_s = time_limit_s
        self._shutdown = shutdown
        self.memory_limit = memory_limit(settings)
        self.disk_limit = disk_limit
        self._folder = folder
        self._make_room = make_room
        self._disk = Disk(settings)
        self._renewed = time.monotonic()
        self._child: ChildProcess | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"guard of {attempt}")

    def __enter__(self) -> "Guard":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    @property
    def lost(self) -> bool:
        """Tell whether the lease is lost; then nothing may be written any more."""
        return self.reason is StopReason.LEASE_LOST

    def watch_over(self, child: ChildProcess) -> None:
        """End this child when there is a reason to; at once if there is one already."""
        self._child = child
        if self.stopped.is_set():
            child.end()

    def _watch(self) -> None:
        while not self._done.wait(_POLL_S):
            try:
                reason = self._find_reason()
            except Exception:
                # Without its guard a job would lose its lease and go on: the next look may do.
                log.exception("a look at the attempt failed", extra=self._attempt.ids)
                continue
            if (
                reason is None
                or self.lost
                or (self.stopped.is_set() and reason is not StopReason.LEASE_LOST)
            ):
                continue
            log.info("ending early", extra=self._attempt.ids | {"reason": reason})
            self.reason = reason
            self.stopped.set()
            if self._child is not None:
                self._child.end()

    def _find_reason(self) -> StopReason | None:
        try:
            cancelled = self._keep_lease().cancel_requested
        except LeaseLost:
            return StopReason.LEASE_LOST
        if cancelled:
            return StopReason.CANCELLED
        if self._shutdown.is_set():
            return StopReason.SHUTDOWN
        if time.monotonic() - self._started > self._time_limit_s:
            return StopReason.TIME_LIMIT
        if self._child is not None and self._child.memory() > self.memory_limit:
            return StopReason.OUT_OF_MEMORY
        if taken_by(self._folder) > self.disk_limit or not self._has_room():
            return StopReason.OUT_OF_DISK
        return None

    def _has_room(self) -> bool:
        try:
            self._disk.check()
        except DiskFull:
            self._make_room()
        try:
            self._disk.check()
        except DiskFull as error:
            log.warning("the disk is full: %s", error, extra=self._attempt.ids)
            return False
        return True

    def _keep_lease(self) -> LeaseState:
        """Read the lease, and renew it if it is time to.

        Raises `LeaseLost`, also if the database cannot be reached and the lease has run out by this
        machine's clock: from then on another worker may run the job.
        """
        now = time.monotonic()
        try:
            if now - self._renewed < self._settings.heartbeat_s:
                with self._database.read() as session:
                    return leases.look(session, self._attempt)
            with self._database.write() as session:
                state = leases.renew(
                    session,
                    self._attempt,
                    lease_s=self._settings.lease_s,
                    run_seconds=now - self._started,
                )
            self._renewed = now
            return state
        except SQLAlchemyError as error:
            left_s = round(self._renewed + self._settings.lease_s - time.monotonic(), 1)
            extra = self._attempt.ids | {"lease_left_s": left_s}
            log.warning("the database does not answer: %s", brief(error), extra=extra)
            if left_s <= 0:
                raise LeaseLost(str(self._attempt)) from error
            return LeaseState(cancel_requested=False)
