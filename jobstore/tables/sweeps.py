"""Sweeps, their trials, and what happened to them."""

from datetime import datetime

from sqlalchemy import Enum, ForeignKey, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from jobstore.dialects import clock
from jobstore.states import SweepState, TrialState
from jobstore.tables.base import ID, Base, Document, Owned, only_where
from jobstore.tables.jobs import Job
from jobstore.tables.uploads import Dataset, Model

UNDER_WAY = text("state = 'running'")


def _states(kind: type[SweepState] | type[TrialState]) -> Enum:
    return Enum(
        kind,
        name="state",
        native_enum=False,
        create_constraint=True,
        length=16,
        values_callable=lambda states: [state.value for state in states],
    )


class Sweep(Owned, Base):
    """Several jobs on one model and data set, the trials, of which the best is looked for.

    `asked` is what its user said that trials are made by: `labels`, `spec`, `grid`, `specs`,
    `goal`, `minimise`, `trials`, `from_denser`. `max_parallel` trials at most are queued or
    running at once. `rank`, `device`, `gpus` and `trial_time_limit_s` are each trial's (`Job`); so
    is `trace`. `message` says in words how it ended, where there is more to say than the state.
    """

    __tablename__ = "sweeps"
    __table_args__ = (
        Index(None, "tenant_id", "id"),
        Index(None, "tenant_id", "finished_at"),
        Index(None, "model_id"),
        Index(None, "dataset_id"),
        Index("ix_sweeps_under_way", "id", **only_where(UNDER_WAY)),
    )

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    name: Mapped[str | None] = mapped_column(Text)
    model_id: Mapped[str] = mapped_column(ID, ForeignKey(Model.id))
    dataset_id: Mapped[str] = mapped_column(ID, ForeignKey(Dataset.id))
    asked: Mapped[Document]

    state: Mapped[SweepState] = mapped_column(_states(SweepState), default=SweepState.RUNNING)
    message: Mapped[str | None] = mapped_column(Text)

    rank: Mapped[int] = mapped_column(default=0)
    device: Mapped[str | None] = mapped_column(String(8))
    gpus: Mapped[int] = mapped_column(default=0)
    max_parallel: Mapped[int]
    time_limit_s: Mapped[float | None]
    trial_time_limit_s: Mapped[float | None]
    trace: Mapped[Document | None]

    created_at: Mapped[datetime] = mapped_column(insert_default=clock())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]
    last_event_seq: Mapped[int] = mapped_column(default=0)

    @property
    def priority(self) -> int:
        """The priority of its trials."""
        return -self.rank


class SweepTrial(Owned, Base):
    """A trial of a sweep: once it has begun a job, else only its spec.

    `point` has the fields that set it apart, by their paths. `denser` is the trial that it may
    start from, `confirms` the one whose figures it is to confirm. Trials of the same `shares` make
    the same things first. `state` is the job's, as it was last told in the sweep's events; `reason`
    says why it was tried, or why it was not. Of a trial whose job was deleted only the row is left.
    """

    __tablename__ = "sweep_trials"
    __table_args__ = (Index(None, "job_id"),)

    sweep_id: Mapped[str] = mapped_column(ID, ForeignKey(Sweep.id), primary_key=True)
    index: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    spec: Mapped[Document]
    point: Mapped[Document]
    denser: Mapped[int | None]
    confirms: Mapped[int | None]
    shares: Mapped[str] = mapped_column(String(64))
    job_id: Mapped[str | None] = mapped_column(ID, ForeignKey(Job.id))
    state: Mapped[TrialState] = mapped_column(_states(TrialState), default=TrialState.PLANNED)
    reason: Mapped[str | None] = mapped_column(Text)


class SweepEvent(Owned, Base):
    """Something that happened to a sweep; `seq` counts from 1 within it, without gaps."""

    __tablename__ = "sweep_events"

    sweep_id: Mapped[str] = mapped_column(ID, ForeignKey(Sweep.id), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    time: Mapped[datetime] = mapped_column(insert_default=clock())
    type: Mapped[str] = mapped_column(String(32))
    data: Mapped[Document]
