"""Jobs, what happened to them, and what they made."""

from datetime import datetime

from sqlalchemy import Enum, ForeignKey, Index, String, Text, false, text
from sqlalchemy.orm import Mapped, mapped_column

from jobstore.dialects import clock
from jobstore.states import JobState
from jobstore.tables.base import (
    ID,
    SHA256,
    Base,
    Described,
    Document,
    Owned,
    listed_by,
    only_where,
)
from jobstore.tables.uploads import Dataset, Model
from jobstore.traces import trace_id_of

# Queries must use the index's own words, or the database does not use the index.
WAITING = text("state = 'queued'")
AT_WORK = text("state IN ('running', 'validating')")

_state = Enum(
    JobState,
    name="state",
    native_enum=False,
    create_constraint=True,
    length=16,
    values_callable=lambda states: [state.value for state in states],
)


class Job(Described, Owned, Base):
    """A job: the truth about it. A broker's message is only a wake-up.

    `attempt` numbers the claims and is the fencing token; it only grows. `failed_attempts` counts
    the claims that ended in a crash or a lost worker, and is what `max_attempts` limits: an attempt
    given back at a deploy costs nothing. `run_seconds` adds up over the attempts and is what
    `time_limit_s` limits. `device` (`cpu`, `gpu`, None: any) and `gpus` are what it may run on; see
    `jobstore.workers`. `reported` counts the child's events of this attempt. `retries` counts how
    often its user had an ended job queued again, which starts both counts anew. `rank` is minus the
    priority, so that a plain index lists the jobs in the order in which they are taken.
    `previous_checkpoint_key` is there in case the newest is broken. `headline` is what the method
    says of a job that has succeeded; nothing here looks into it. `sweep_id` is the sweep that the
    job is a trial of. `trace` are the W3C headers that lead to the span of the request that made
    the job (`jobstore.traces`). `start_from` is the denser job whose `model.atmc` it starts from,
    and `start_sha256` that file's digest (`jobstore.starts`). `awaits_inputs` says that its model
    or data set is still being fetched: no worker takes it. `results` is where its files are to be
    put, too, and what came of it (`jobstore.transfers`).
    """

    __tablename__ = "jobs"
    __table_args__ = (
        *listed_by("jobs"),
        Index(None, "tenant_id", "id"),
        Index(None, "tenant_id", "state", "id"),
        Index(None, "tenant_id", "finished_at"),
        # By the file, and then by whether the job still needs it, or when it ended.
        Index(None, "model_id", "finished_at"),
        Index(None, "dataset_id", "finished_at"),
        Index("ix_jobs_waiting", "tenant_id", "rank", "id", **only_where(WAITING)),
        Index("ix_jobs_at_work", "tenant_id", "lease_expires_at", **only_where(AT_WORK)),
        Index(
            "ix_jobs_checkpoints",
            "finished_at",
            **only_where(text("checkpoint_key IS NOT NULL")),
        ),
        Index(
            "ix_jobs_starts",
            "tenant_id",
            "start_sha256",
            "finished_at",
            **only_where(text("start_sha256 IS NOT NULL")),
        ),
    )

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    spec: Mapped[Document]
    model_id: Mapped[str] = mapped_column(ID, ForeignKey(Model.id))
    dataset_id: Mapped[str] = mapped_column(ID, ForeignKey(Dataset.id))
    start_from: Mapped[str | None] = mapped_column(ID)
    start_sha256: Mapped[str | None] = mapped_column(SHA256)

    awaits_inputs: Mapped[bool] = mapped_column(default=False, server_default=false())
    results: Mapped[Document | None]

    rank: Mapped[int] = mapped_column(default=0, server_default="0")

    state: Mapped[JobState] = mapped_column(_state, default=JobState.QUEUED)
    stage: Mapped[str | None] = mapped_column(Text)
    stage_started_at: Mapped[datetime | None]
    progress: Mapped[float] = mapped_column(default=0.0)
    epoch: Mapped[int | None]
    epochs: Mapped[int | None]
    eta_s: Mapped[float | None]

    attempt: Mapped[int] = mapped_column(default=0)
    failed_attempts: Mapped[int] = mapped_column(default=0)
    max_attempts: Mapped[int]
    owner: Mapped[str | None] = mapped_column(Text)
    lease_expires_at: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]
    device: Mapped[str | None] = mapped_column(String(8))
    gpus: Mapped[int] = mapped_column(default=0, server_default="0")
    time_limit_s: Mapped[float]
    run_seconds: Mapped[float] = mapped_column(default=0.0)
    retries: Mapped[int] = mapped_column(default=0, server_default="0")
    checkpoint_key: Mapped[str | None] = mapped_column(Text)
    previous_checkpoint_key: Mapped[str | None] = mapped_column(Text)
    last_event_seq: Mapped[int] = mapped_column(default=0)
    reported: Mapped[int] = mapped_column(default=0, server_default="0")

    created_at: Mapped[datetime] = mapped_column(insert_default=clock())
    queued_at: Mapped[datetime | None] = mapped_column(insert_default=clock())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    error_code: Mapped[str | None] = mapped_column(Text)
    error_message: Mapped[str | None] = mapped_column(Text)
    error_param: Mapped[str | None] = mapped_column(Text)

    headline: Mapped[Document | None]
    # It has neither foreign key nor index: a sweep's trials name their jobs, and jobs are many.
    sweep_id: Mapped[str | None] = mapped_column(ID)
    trace: Mapped[Document | None]

    @property
    def trace_id(self) -> str | None:
        """The id of the job's trace, if it has one."""
        return trace_id_of(self.trace)

    @property
    def priority(self) -> int:
        """The job's priority; the highest of a tenant's waiting jobs is taken first."""
        return -self.rank

    @property
    def checkpoint_keys(self) -> list[str]:
        """The stored checkpoints, newest first; at most two."""
        return [key for key in (self.checkpoint_key, self.previous_checkpoint_key) if key]

    def forget_checkpoints(self) -> list[str]:
        """Name no checkpoint any more; returns the keys of those that were named."""
        keys = self.checkpoint_keys
        self.checkpoint_key = self.previous_checkpoint_key = None
        return keys


class Event(Owned, Base):
    """Something that happened to a job; `seq` counts from 1 within the job, without gaps.

    `attempt` is the attempt that wrote it, 0 before the first claim; `data` is the event without
    its type and time.
    """

    __tablename__ = "events"

    job_id: Mapped[str] = mapped_column(ID, ForeignKey(Job.id), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    time: Mapped[datetime] = mapped_column(insert_default=clock())
    type: Mapped[str] = mapped_column(String(32))
    attempt: Mapped[int]
    data: Mapped[Document]


class Artifact(Owned, Base):
    """A file that a job made: its bytes are the blob `sha256`."""

    __tablename__ = "artifacts"
    __table_args__ = (Index(None, "tenant_id", "sha256"),)

    job_id: Mapped[str] = mapped_column(ID, ForeignKey(Job.id), primary_key=True)
    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(insert_default=clock())
    media_type: Mapped[str] = mapped_column(String(255))
    sha256: Mapped[str] = mapped_column(SHA256)
    bytes: Mapped[int]
