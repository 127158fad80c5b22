"""The life of one attempt: a folder, a child in it, and what the child leaves made durable.

Why a child process: it can be killed (a cancel frees the machine within seconds), its crash costs
an attempt and not the worker, and it needs neither secrets nor network. Every write here is
conditional on the attempt, so a supervisor that was paused and overtaken does no harm.
"""

import json
import logging
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from jobstore import leases, uploads
from jobstore.blobs import touch
from jobstore.database import Database
from jobstore.errors import LeaseLost
from jobstore.leases import Attempt, JobError, NewArtifact
from jobstore.logs import brief
from jobstore.objects import ObjectStore, blob_key, checkpoint_key, digest_of
from jobstore.retry import TRANSIENT, GaveUp, retry
from jobstore.settings import Settings
from jobstore.states import JobState
from jobstore.tables import Dataset, Job, Model
from worker.events import EventTail, ProtocolError
from worker.folder import REPORT, RunFolder, is_result, media_type, run_folder, write_json
from worker.guard import Guard, StopReason
from worker.memory import OomKills
from worker.process import ChildFactory

log = logging.getLogger(__name__)

T = TypeVar("T")

CHILD_COMMAND = (sys.executable, "-m", "worker.child")

_SHIP_EVERY_S = 0.2
_MODEL_SUFFIX = {"safetensors": ".safetensors", "torch": ".pt", "onnx": ".onnx"}


def runs_folder(settings: Settings) -> Path:
    """Return where the run folders of this machine are."""
    return settings.home / "runs"


class Supervisor:
    """Runs attempts one after the other; `shutdown` makes it give the present one back."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        store: ObjectStore,
        *,
        device: str,
        shutdown: threading.Event,
        child_command: Sequence[str] | None = None,
    ) -> None:
        """`device` is "cpu" or "cuda"; `child_command` waits for the folder on standard input."""
        self.settings = settings
        self.database = database
        self.store = store
        self.device = device
        self.shutdown = shutdown
        limit = str(settings.max_file_bytes)
        self.children = ChildFactory(child_command or (*CHILD_COMMAND, "--supervised", limit))

    def run(self, job: Job, attempt: Attempt) -> None:
        """Run the claimed job to the end of this attempt, whatever that is."""
        log.info("attempt begins", extra=attempt.ids)
        try:
            name = f"{job.id}-{attempt.number}"
            with (
                run_folder(runs_folder(self.settings), name) as folder,
                self._guard(job, attempt) as guard,
            ):
                _Run(self, job, attempt, folder, guard).to_its_end()
        except (LeaseLost, GaveUp) as error:
            # Nothing may be written any more; the keeper has queued the job or will.
            log.warning("attempt abandoned: %s", error, extra=attempt.ids)
        log.info("attempt ended", extra=attempt.ids)

    def _guard(self, job: Job, attempt: Attempt) -> Guard:
        return Guard(
            self.settings,
            self.database,
            attempt,
            run_seconds=job.run_seconds,
            time_limit_s=job.time_limit_s,
            shutdown=self.shutdown,
        )


class _Run:
    """One attempt at work."""

    def __init__(
        self, supervisor: Supervisor, job: Job, attempt: Attempt, folder: RunFolder, guard: Guard
    ) -> None:
        self.supervisor = supervisor
        self.database = supervisor.database
        self.store = supervisor.store.of(job.tenant_id)
        self.job = job
        self.attempt = attempt
        self.folder = folder
        self.guard = guard
        self.events = EventTail(folder.events)
        self.shipped: Path | None = None
        self.oom_kills = OomKills()

    def to_its_end(self) -> None:
        """Prepare, supervise, publish; raises `LeaseLost` or `GaveUp` when the lease is gone."""
        try:
            self._prepare()
            self._end(self._supervise())
        except GaveUp:
            self._stop()
        except LeaseLost:
            raise
        except ProtocolError as error:
            self._fail_attempt(JobError("child_crashed", str(error)))
        except Exception as error:
            # A mistake of ours must not leave the job hanging until its lease runs out.
            log.exception("the supervisor failed", extra=self.attempt.ids)
            self._fail_attempt(JobError("internal_error", f"{type(error).__name__}: {error}"))

    def _prepare(self) -> None:
        """Fill the folder: inputs, the checkpoint to resume at, and the job itself."""
        model, dataset = self._patiently("reading the job's inputs", self._inputs)
        model_path = self.folder.inputs / f"model{_MODEL_SUFFIX[model.format]}"
        dataset_path = self.folder.inputs / "dataset"
        self._fetch(blob_key(model.sha256, model.tenant_id), model_path)
        self._fetch(blob_key(dataset.sha256, dataset.tenant_id), dataset_path)
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
            "device": self.supervisor.device,
            "processes": max(1, self.job.gpus),
            "threads": self.supervisor.settings.threads,
        }
        write_json(self.folder.job, document)

    def _inputs(self) -> tuple[Model, Dataset]:
        with self.database.read() as session:
            model = uploads.get_model(session, self.job.model_id)
            return model, uploads.get_dataset(session, self.job.dataset_id)

    def _supervise(self) -> int:
        """Run the child to its end and ship what it leaves; returns its exit status."""
        child = self.supervisor.children.start(self.folder.path)
        log.info("child started", extra=self.attempt.ids | {"pid": child.pid})
        try:
            self.guard.watch_over(child)
            while not child.wait(_SHIP_EVERY_S):
                self._ship()
                if self.events.confirmed:
                    # Not before this child's first event: loading the next would slow its start.
                    self.supervisor.children.warm_up()
        finally:
            child.end()
            status = child.reap()
        log.info("child ended", extra=self.attempt.ids | {"status": status})
        if self.folder.outcome.exists():
            self._ship_events()
        else:
            self._ship()
        return status

    def _ship(self) -> None:
        """Make the new events and the newest checkpoint durable."""
        # Looked for first: all that led to this checkpoint is in the events already.
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

    def _ship_checkpoint(self, path: Path) -> None:
        key = checkpoint_key(self.job.id, self.attempt.number, path.name)
        try:
            self._patiently("storing a checkpoint", lambda: self.store.put_file(key, path))
        except FileNotFoundError:
            return  # The child has deleted it for newer ones, which the next round will find.
        replaced = self._write(
            "naming a checkpoint", lambda s: leases.set_checkpoint(s, self.attempt, key)
        )
        self.shipped = path
        if replaced is not None:
            self._delete(replaced)

    def _end(self, status: int) -> None:
        """Make what the child left durable, and write down how it ended."""
        if self.folder.outcome.exists():
            self._publish(json.loads(self.folder.outcome.read_text()))
        elif self.guard.stopped.is_set():
            self._stop()
        else:
            self._fail_attempt(self._crash(status))

    def _crash(self, status: int) -> JobError:
        """Say why the child left no outcome, by a code that tells what to do about it."""
        message = f"the child process {_describe(status)}; its output ends:\n"
        message += self.folder.log_tail()
        # Of several processes it is torchrun that ends, with a status of its own.
        if (status == -signal.SIGKILL or self.job.gpus > 1) and self.oom_kills.happened():
            return JobError("out_of_memory", f"the machine's memory ran out: {message}")
        match self.folder.crash_document():
            case {"code": "out_of_memory" | "cuda_error" as code, "message": str(said)}:
                return JobError(code, f"{said}; {message}")
        return JobError("child_crashed", message)

    def _publish(self, outcome: dict[str, Any]) -> None:
        match outcome:
            case {"status": "succeeded", "headline": dict(headline)}:
                artifacts = [self._store_artifact(path) for path in self._results()]
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

    def _store_artifact(self, path: Path) -> NewArtifact:
        sha256, size = digest_of(path), path.stat().st_size
        # Touched first: the same bytes may belong to a deleted job, and the keeper must keep them.
        self._write("storing", lambda s: touch(s, self.job.tenant_id, sha256, size))
        stored = self._patiently(f"storing {path.name}", lambda: self.store.put_blob(path))
        return NewArtifact(path.name, media_type(path.name), stored.sha256, stored.bytes)

    def _stop(self) -> None:
        """Write down the end that the guard has seen a reason for."""
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
            case StopReason.SHUTDOWN:
                self._write("giving back", lambda s: leases.release(s, self.attempt))
            case _:
                raise LeaseLost(str(self.attempt))

    def _fail_attempt(self, error: JobError) -> None:
        log.warning("attempt failed: %s", brief(error.message), extra=self.attempt.ids)
        self._write("failing the attempt", lambda s: leases.fail_attempt(s, self.attempt, error))

    def _finish(self, state: JobState, **outcome: Any) -> None:
        forgotten = self._write(
            "finishing", lambda s: leases.finish(s, self.attempt, state, **outcome)
        )
        log.info("job finished", extra=self.attempt.ids | {"state": state})
        for key in forgotten:
            self._delete(key)

    def _fetch(self, key: str, path: Path) -> None:
        self._patiently(f"fetching {path.name}", lambda: self.store.get_file(key, path))

    def _fetch_checkpoint(self, key: str, path: Path) -> None:
        """Put a stored checkpoint back; one that is gone is no worse than one that is broken."""
        try:
            self._fetch(key, path)
        except FileNotFoundError:
            path.unlink(missing_ok=True)
            log.warning("the checkpoint %s is gone", key, extra=self.attempt.ids)

    def _delete(self, key: str) -> None:
        """Delete an object that nothing refers to any more; if that fails only space is lost."""
        try:
            self.store.delete(key)
        except TRANSIENT as error:
            log.warning("%s was not deleted: %s", key, brief(error), extra=self.attempt.ids)

    def _patiently(self, what: str, action: Callable[[], T]) -> T:
        """Ask a server until it answers, or until the attempt is stopped."""
        return retry(action, what=what, until=self.guard.stopped.is_set)

    def _write(self, what: str, write: Callable[[Session], T]) -> T:
        """Write to the database until it works, or until the lease is lost."""

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
