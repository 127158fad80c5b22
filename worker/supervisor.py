"""Runs attempts: fills a folder, starts a child in it, and stores what the child leaves.

A job runs in a child process for three reasons: it can be killed, so a cancel frees the machine
within seconds; a crash costs an attempt and not the worker; and it needs neither secrets nor
network. All writes to the database are conditional on the attempt's lease, so a supervisor that was
paused, and whose job was given to another worker, does no harm.
"""

import json
import logging
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from jobstore import leases, logs, uploads
from jobstore.blobs import touch
from jobstore.database import Database
from jobstore.disk import Disk
from jobstore.errors import DiskFull, LeaseLost
from jobstore.leases import Attempt, JobError, NewArtifact
from jobstore.logs import brief
from jobstore.objects import ObjectStore, blob_key, checkpoint_key, digest_of
from jobstore.retry import TRANSIENT, GaveUp, retry
from jobstore.settings import Settings
from jobstore.states import JobState
from jobstore.tables import Dataset, Job, Model, Tenant
from jobstore.terms import Terms
from jobstore.traces import Attributes, Span
from worker.events import EventTail, ProtocolError
from worker.folder import REPORT, is_result, media_type, write_json
from worker.guard import Guard, StopReason
from worker.memory import OomKills
from worker.shelter import Shelter
from worker.signing import Signer
from worker.spans import AttemptSpans
from worker.workplace import ChildFactory, Workplace

log = logging.getLogger(__name__)

T = TypeVar("T")

#: The command of a child that waits, without its restrictions.
CHILD_COMMAND = (sys.executable, "-m", "worker.child", "--supervised")

# Events and checkpoints are stored every so many seconds.
_SHIP_EVERY_S = 0.2
# A run needs this much whatever its tenant may store: checkpoints and results, too.
_LEAST_DISK_BYTES = 256 << 20
_MODEL_SUFFIX = {"safetensors": ".safetensors", "torch": ".pt", "onnx": ".onnx"}


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
        self.shelter = Shelter(settings, runs_folder(settings))
        self.children = ChildFactory(child_command, self.shelter)

    def has_room(self) -> bool:
        """Tell whether the disk has room for another job; if not, jobs are left to others."""
        try:
            Disk(self.settings).check(_LEAST_DISK_BYTES)
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


class StartGone(Exception):
    """The denser network that a job was to start from is no longer there."""


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
        self.database = supervisor.database
        self.store = supervisor.store.of(job.tenant_id)
        self.job = job
        self.attempt = attempt
        self.workplace, self.folder = workplace, workplace.folder
        self.guard = guard
        self.spans = spans
        self.events = EventTail(self.folder.events)
        self.shipped: Path | None = None
        self.oom_kills = OomKills(workplace.cgroup)

    def to_its_end(self) -> None:
        """Prepare the folder, supervise the child and store the results.

        Raises `LeaseLost` or `GaveUp` if the lease is lost.
        """
        try:
            with self.spans.step("fetch"):
                self._prepare()
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

    def _prepare(self) -> None:
        """Fill the folder: the inputs, the checkpoints to resume from, and the job's document."""
        model, dataset = self._patiently("reading the job's inputs", self._inputs)
        model_path = self.folder.inputs / f"model{_MODEL_SUFFIX[model.format]}"
        dataset_path = self.folder.inputs / "dataset"
        self._fetch(blob_key(model.sha256, model.tenant_id), model_path)
        self._fetch(blob_key(dataset.sha256, dataset.tenant_id), dataset_path)
        start = self._fetch_start()
        for key in reversed(self.job.checkpoint_keys):
            self.shipped = self.folder.checkpoints / Path(key).name
            self._fetch_checkpoint(key, self.shipped)
        document = {
            "job_id": self.job.id,
            "attempt": self.attempt.number,
            "spec": self.job.spec,
            "model": {
                "path": str(model_path.relative_to(self.folder.path)),
                "architecture": model.architecture,
                "normalization": model.normalization,
            },
            "dataset": {"path": str(dataset_path.relative_to(self.folder.path))},
            "start": start,
            "device": self.supervisor.device,
            "processes": max(1, self.job.gpus),
            "threads": self.supervisor.settings.threads,
        }
        write_json(self.folder.job, document)

    def _fetch_start(self) -> dict[str, Any] | None:
        """Fetch the denser network that the job starts from; returns what the child is told."""
        sha256 = self.job.start_sha256
        if sha256 is None:
            return None
        path = self.folder.inputs / "denser.atmc"
        try:
            self._fetch(blob_key(sha256, self.job.tenant_id), path)
        except FileNotFoundError as error:
            raise StartGone from error
        return {
            "path": str(path.relative_to(self.folder.path)),
            "sha256": sha256,
            "job_id": self.job.start_from,
        }

    def _inputs(self) -> tuple[Model, Dataset]:
        with self.database.read() as session:
            model = uploads.get_model(session, self.job.model_id)
            return model, uploads.get_dataset(session, self.job.dataset_id)

    def _supervise(self) -> int:
        """Run the child to its end, and store events and checkpoints; returns its exit status."""
        child = self.workplace.begin()
        extra = {"pid": child.pid, "folder": self.folder.path.name}
        log.info("child started", extra=self.attempt.ids | extra)
        try:
            self.guard.watch_over(child)
            while not child.wait(_SHIP_EVERY_S):
                self._ship()
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
            self._write(
                "shipping events", lambda s: leases.report(s, self.attempt, events, first=first)
            )
            self.events.confirm()
            self.spans.follow(events)

    def _ship_checkpoint(self, path: Path) -> None:
        key = checkpoint_key(self.job.id, self.attempt.number, path.name)
        try:
            self._patiently("storing a checkpoint", lambda: self.store.put_file(key, path))
        except FileNotFoundError:
            return  # The child has replaced it by a newer one, which the next call will find.
        replaced = self._write(
            "naming a checkpoint", lambda s: leases.set_checkpoint(s, self.attempt, key)
        )
        self.shipped = path
        if replaced is not None:
            self._delete(replaced)

    def _end(self, status: int) -> None:
        """Store the results, or the reason why there are none."""
        if self.folder.outcome.exists():
            self._publish(json.loads(self.folder.outcome.read_text()))
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

    def _publish(self, outcome: dict[str, Any]) -> None:
        match outcome:
            case {"status": "succeeded", "headline": dict(headline)}:
                self.spans.child_ended()
                with self.spans.step("publish") as publishing:
                    results = self._results()
                    artifacts = [self._store_artifact(path, publishing) for path in results]
                    if self.supervisor.signer is not None:
                        artifacts.append(
                            self._attest(self.supervisor.signer, artifacts, publishing)
                        )
                self._finish(JobState.SUCCEEDED, headline=headline, artifacts=artifacts)
            case {"status": "failed", "error": {"code": str(), "message": str()} as error}:
                self._finish(JobState.FAILED, error=JobError(**error))
            case _:
                raise ProtocolError(f"not an outcome: {outcome!r}")

    def _results(self) -> list[Path]:
        found = sorted(self.folder.results.iterdir())
        if REPORT not in (path.name for path in found):
            raise ProtocolError(f"a succeeded child left no results/{REPORT}")
        for path in found:
            if not is_result(path):
                raise ProtocolError(f"a child left results/{path.name!r}, which is not a result")
        return found

    def _store_artifact(self, path: Path, publishing: Span) -> NewArtifact:
        size = path.stat().st_size
        told: Attributes = {"atmc.artifact.name": path.name, "atmc.artifact.bytes": size}
        with self.spans.step(f"publish {path.name}", below=publishing, attributes=told):
            return self._put_artifact(path, size)

    def _put_artifact(self, path: Path, size: int) -> NewArtifact:
        sha256 = digest_of(path)
        # The blob is touched first: the same bytes may belong to a deleted job, and then the keeper
        # must not delete them.
        self._write("storing", lambda s: touch(s, self.job.tenant_id, sha256, size))
        stored = self._patiently(f"storing {path.name}", lambda: self.store.put_blob(path))
        return NewArtifact(path.name, media_type(path.name), stored.sha256, stored.bytes)

    def _attest(
        self, signer: Signer, artifacts: Sequence[NewArtifact], publishing: Span
    ) -> NewArtifact:
        """Sign the digests under which the results were stored, and store that, too."""
        model, dataset = self._patiently("reading the job's inputs", self._inputs)
        inputs = {"model": model.sha256, "dataset": dataset.sha256}
        path = self.folder.attestation
        # A link that the child has put there would lead elsewhere.
        path.unlink(missing_ok=True)
        with path.open("xb") as file:
            file.write(signer.attest(self.job, inputs, artifacts))
        return self._store_artifact(path, publishing)

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
                state = self._write("giving back", lambda s: leases.release(s, self.attempt))
                self.spans.end(state)
            case _:
                raise LeaseLost(str(self.attempt))

    def _fail_attempt(self, error: JobError) -> None:
        log.warning("attempt failed: %s", brief(error.message), extra=self.attempt.ids)
        state = self._write(
            "failing the attempt", lambda s: leases.fail_attempt(s, self.attempt, error)
        )
        self.spans.end(state, error.code)

    def _finish(self, state: JobState, *, error: JobError | None = None, **outcome: Any) -> None:
        forgotten = self._write(
            "finishing", lambda s: leases.finish(s, self.attempt, state, error=error, **outcome)
        )
        self.spans.end(state, error.code if error else None)
        log.info("job finished", extra=self.attempt.ids | {"state": state})
        for key in forgotten:
            self._delete(key)

    def _fetch(self, key: str, path: Path) -> None:
        self._patiently(f"fetching {path.name}", lambda: self.store.get_file(key, path))

    def _fetch_checkpoint(self, key: str, path: Path) -> None:
        """Put a stored checkpoint into the folder; one that is gone is treated as a broken one."""
        try:
            self._fetch(key, path)
        except FileNotFoundError:
            path.unlink(missing_ok=True)
            log.warning("the checkpoint %s is gone", key, extra=self.attempt.ids)

    def _delete(self, key: str) -> None:
        """Delete an object that nothing refers to any more; a failure only wastes space."""
        try:
            self.store.delete(key)
        except TRANSIENT as error:
            log.warning("%s was not deleted: %s", key, brief(error), extra=self.attempt.ids)

    def _patiently(self, what: str, action: Callable[[], T]) -> T:
        """Repeat an action until the server answers, or until the attempt is stopped."""
        return retry(action, what=what, until=self.guard.stopped.is_set)

    def _write(self, what: str, write: Callable[[Session], T]) -> T:
        """Repeat a write to the database until it works, or until the lease is lost."""

        def transaction() -> T:
            with self.database.write() as session:
                return write(session)

        return retry(transaction, what=what, until=lambda: self.guard.lost)


def _describe(status: int) -> str:
    if status == -signal.SIGKILL:
        return "was killed by SIGKILL (which is also how a machine out of memory ends a process)"
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with exit status {status}"
