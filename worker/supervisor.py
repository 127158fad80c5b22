"""Runs attempts: fills a folder, starts a child in it, and stores what the child leaves.

A job runs in a child process for three reasons: it can be killed, so a cancel frees the machine
within seconds; a crash costs an attempt and not the worker; and it needs neither secrets nor
network. All writes to the database are conditional on the attempt's lease, so a supervisor that was
paused, and whose job was given to another worker, does no harm.
"""

import logging
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

from jobstore import leases, logs
from jobstore.database import Database
from jobstore.disk import Disk
from jobstore.errors import DiskFull, LeaseLost
from jobstore.leases import Attempt, JobError
from jobstore.logs import brief
from jobstore.objects import ObjectStore, checkpoint_key
from jobstore.retry import GaveUp, retry
from jobstore.settings import Settings
from jobstore.states import JobState
from jobstore.tables import Job, Tenant
from jobstore.terms import Terms
from worker.access import Access
from worker.cache import InputCache
from worker.events import EventTail, ProtocolError
from worker.filling import Filling, StartGone
from worker.guard import Guard, StopReason
from worker.memory import OomKills
from worker.products import ProductDesk
from worker.publishing import Publisher, read_outcome
from worker.shelter import Shelter
from worker.signing import Signer
from worker.spans import AttemptSpans
from worker.workplace import ChildFactory, Workplace

log = logging.getLogger(__name__)

#: The command of a child that waits, without its restrictions.
CHILD_COMMAND = (sys.executable, "-m", "worker.child", "--supervised")

# Events and checkpoints are stored every so many seconds.
_SHIP_EVERY_S = 0.2
# A run needs this much whatever its tenant may store: checkpoints and results, too.
_LEAST_DISK_BYTES = 256 << 20


def runs_folder(settings: Settings) -> Path:
    """Return the folder of this machine's run folders."""
    return settings.home / "runs"


class Supervisor:
    """Runs one attempt after the other; when `shutdown` is set, it gives the present one back."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        store: ObjectStore,
        *,
        device: str,
        shutdown: threading.Event,
        child_command: Sequence[str] = CHILD_COMMAND,
        signer: Signer | None = None,
    ) -> None:
        """`device` is "cpu" or "cuda"; `child_command` is as in `Workplace`.

        Without a `signer` results are published unsigned.

        Raises as `Shelter` does.
        """
        self.settings = settings
        self.database = database
        self.store = store
        self.device = device
        self.shutdown = shutdown
        self.signer = signer
        self.cache = InputCache(settings)
        self.shelter = Shelter(settings, runs_folder(settings))
        self.children = ChildFactory(child_command, self.shelter)

    def has_room(self) -> bool:
        """Tell whether the disk has room for another job; if not, jobs are left to others."""
        disk = Disk(self.settings)
        try:
            disk.check(_LEAST_DISK_BYTES)
        except DiskFull:
            # What is kept for later jobs is the first to go.
            self.cache.clear()
        try:
            disk.check(_LEAST_DISK_BYTES)
        except DiskFull as error:
            log.warning("no job is taken, the disk is full: %s", error)
            return False
        return True

    def run(self, job: Job, attempt: Attempt, claiming_since: datetime | None = None) -> None:
        """Run a claimed job until this attempt ends, in whatever way.

        `claiming_since` is when the claim that led to it was begun.
        """
        logs.begin(**attempt.ids)
        spans = AttemptSpans(job, attempt, claiming_since)
        log.info("attempt begins", extra=attempt.ids)
        try:
            with (
                self.children.take(together=job.gpus > 1) as workplace,
                self._guard(job, attempt, workplace.folder.path) as guard,
            ):
                _Run(self, job, attempt, workplace, guard, spans).to_its_end()
        except (LeaseLost, GaveUp) as error:
            # Nothing may be written any more. The keeper queues the job again.
            log.warning("attempt abandoned: %s", error, extra=attempt.ids)
        log.info("attempt ended", extra=attempt.ids)
        logs.begin()

    def _guard(self, job: Job, attempt: Attempt, folder: Path) -> Guard:
        return Guard(
            self.settings,
            self.database,
            attempt,
            run_seconds=job.run_seconds,
            time_limit_s=job.time_limit_s,
            shutdown=self.shutdown,
            folder=folder,
            disk_limit=self._disk_limit(job.tenant_id),
            make_room=self.cache.clear,
        )

    def _disk_limit(self, tenant_id: str) -> int:
        """Return what a run of the tenant's may take of the disk: all that it may store at most."""

        def stored_bytes() -> int | None:
            with self.database.read() as session:
                tenant = session.get_one(Tenant, tenant_id)
            return Terms.of(self.settings, tenant).max_stored_bytes

        stored = retry(stored_bytes, what="reading the tenant's terms", until=self.shutdown.is_set)
        most = self.settings.max_run_bytes
        return most if stored is None else min(most, max(stored, _LEAST_DISK_BYTES))


class _Run:
    """One attempt.

    Attributes:
        events: the events that the child writes.
        shipped: the newest checkpoint that is stored.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        job: Job,
        attempt: Attempt,
        workplace: Workplace,
        guard: Guard,
        spans: AttemptSpans,
    ) -> None:
        self.supervisor = supervisor
        self.job = job
        self.attempt = attempt
        self.workplace, self.folder = workplace, workplace.folder
        self.guard = guard
        self.spans = spans
        store = supervisor.store.of(job.tenant_id)
        self.access = Access(supervisor.database, store, attempt, guard)
        self.filling = Filling(self.access, job, self.folder, supervisor.cache)
        self.publisher = Publisher(self.access, job, self.folder, spans, supervisor.signer)
        self.events = EventTail(self.folder.events)
        self.shipped: Path | None = None
        self.oom_kills = OomKills(workplace.cgroup)

    def to_its_end(self) -> None:
        """Prepare the folder, supervise the child and store the results.

        Raises `LeaseLost` or `GaveUp` if the lease is lost.
        """
        try:
            with self.spans.step("fetch"):
                settings = self.supervisor.settings
                self.shipped = self.filling.fill(
                    device=self.supervisor.device, threads=settings.threads
                )
            self._end(self._supervise())
        except GaveUp:
            self._stop()
        except LeaseLost:
            raise
        except StartGone:
            message = (
                f"the network that the job starts from is gone with {self.job.start_from}: a job "
                "that has ended no longer keeps it. Name another one, or leave start_from out"
            )
            self._finish(JobState.FAILED, error=JobError("start_gone", message, "start_from"))
        except ProtocolError as error:
            self._fail_attempt(JobError("child_crashed", str(error)))
        except Exception as error:
            # After a bug of ours, the job must not wait until its lease has run out.
            log.exception("the supervisor failed", extra=self.attempt.ids)
            self._fail_attempt(JobError("internal_error", f"{type(error).__name__}: {error}"))

    def _supervise(self) -> int:
        """Run the child to its end, and store events and checkpoints; returns its exit status."""
        cache, settings = self.supervisor.cache, self.supervisor.settings
        with closing(ProductDesk(self.access, self.folder.products, cache, settings)) as desk:
            child = self.workplace.begin()
            extra = {"pid": child.pid, "folder": self.folder.path.name}
            log.info("child started", extra=self.attempt.ids | extra)
            try:
                self.guard.watch_over(child)
                while not child.wait(_SHIP_EVERY_S):
                    self._ship()
                    desk.serve()
                    if self.events.confirmed:
                        # The next child is not started earlier, because that would slow this one's
                        # start.
                        self.supervisor.children.warm_up()
            finally:
                status = self.workplace.end()
            log.info("child ended", extra=self.attempt.ids | {"status": status})
            if self.folder.outcome.exists():
                self._ship_events()
            else:
                self._ship()
            desk.keep()
        return status

    def _ship(self) -> None:
        """Store the new events and the newest checkpoint."""
        # The checkpoint is looked up first, so that the events that are read next include all that
        # happened before it.
        checkpoint = self.folder.newest_checkpoint()
        self._ship_events()
        if checkpoint is not None and checkpoint != self.shipped:
            self._ship_checkpoint(checkpoint)

    def _ship_events(self) -> None:
        events = self.events.read()
        if events:
            first = self.events.confirmed
            self.access.write(
                "shipping events", lambda s: leases.report(s, self.attempt, events, first=first)
            )
            self.events.confirm()
            self.spans.follow(events)

    def _ship_checkpoint(self, path: Path) -> None:
        access = self.access
        key = checkpoint_key(self.job.id, self.attempt.number, path.name)
        try:
            access.patiently("storing a checkpoint", lambda: access.store.put_file(key, path))
        except FileNotFoundError:
            return  # The child has replaced it by a newer one, which the next call will find.
        replaced = access.write(
            "naming a checkpoint", lambda s: leases.set_checkpoint(s, self.attempt, key)
        )
        self.shipped = path
        if replaced is not None:
            access.delete(replaced)

    def _end(self, status: int) -> None:
        """Store the results, or the reason why there are none."""
        if self.folder.outcome.exists():
            outcome = read_outcome(self.folder)
            if isinstance(outcome, JobError):
                self._finish(JobState.FAILED, error=outcome)
                return
            self.spans.child_ended()
            artifacts = self.publisher.publish(self.filling.inputs())
            self._finish(JobState.SUCCEEDED, headline=outcome, artifacts=artifacts)
        elif self.guard.stopped.is_set():
            self._stop()
        else:
            self._fail_attempt(self._crash(status))

    def _crash(self, status: int) -> JobError:
        """Return the error of a child that left no outcome, with a code for the kind of crash."""
        message = f"the child process {_describe(status)}; its output ends:\n"
        message += self.folder.log_tail()
        # With several processes, the exit status is torchrun's and does not tell the reason.
        if (status == -signal.SIGKILL or self.job.gpus > 1) and self.oom_kills.happened():
            return JobError("out_of_memory", f"the machine's memory ran out: {message}")
        match self.folder.crash_document():
            case {"code": "out_of_memory" | "cuda_error" as code, "message": str(said)}:
                return JobError(code, f"{said}; {message}")
        return JobError("child_crashed", message)

    def _stop(self) -> None:
        """Write down that the attempt was stopped, for the guard's reason."""
        match self.guard.reason:
            case StopReason.CANCELLED:
                self._finish(JobState.CANCELLED)
            case StopReason.TIME_LIMIT:
                message = f"the job ran longer than its limit of {self.job.time_limit_s:g} seconds"
                self._finish(JobState.FAILED, error=JobError("time_limit", message))
            case StopReason.OUT_OF_MEMORY:
                message = (
                    f"the job's process needed more than {self.guard.memory_limit:,} bytes: choose "
                    "smaller batches, or a worker with a larger ATMC_MEMORY_LIMIT_BYTES"
                )
                self._finish(JobState.FAILED, error=JobError("out_of_memory", message))
            case StopReason.OUT_OF_DISK:
                message = (
                    f"the job's folder took more than {self.guard.disk_limit:,} bytes, or left the "
                    "worker's disk too full: send fewer images, or see ATMC_MAX_RUN_BYTES and "
                    "ATMC_RESERVED_BYTES"
                )
                self._finish(JobState.FAILED, error=JobError("out_of_disk", message))
            case StopReason.SHUTDOWN:
                state = self.access.write("giving back", lambda s: leases.release(s, self.attempt))
                self.spans.end(state)
            case _:
                raise LeaseLost(str(self.attempt))

    def _fail_attempt(self, error: JobError) -> None:
        log.warning("attempt failed: %s", brief(error.message), extra=self.attempt.ids)
        state = self.access.write(
            "failing the attempt", lambda s: leases.fail_attempt(s, self.attempt, error)
        )
        self.spans.end(state, error.code)

    def _finish(self, state: JobState, *, error: JobError | None = None, **outcome: Any) -> None:
        forgotten = self.access.write(
            "finishing", lambda s: leases.finish(s, self.attempt, state, error=error, **outcome)
        )
        self.spans.end(state, error.code if error else None)
        log.info("job finished", extra=self.attempt.ids | {"state": state})
        for key in forgotten:
            self.access.delete(key)


def _describe(status: int) -> str:
    if status == -signal.SIGKILL:
        return "was killed by SIGKILL (which is also how a machine out of memory ends a process)"
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with exit status {status}"
