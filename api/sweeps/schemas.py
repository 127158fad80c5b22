"""A new sweep, and how the API shows one."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from api.describing import Labels, Name
from api.jobs.headline import Headline
from api.jobs.resources import Resources
from api.jobs.schemas import MAX_PRIORITY, MAX_TIME_LIMIT_S, JobError, ShownEvent, optional_fields
from api.sweeps.progress import Progress
from api.webhooks.schemas import NewSweepWebhook, WebhookOfJob
from atmc_spec import AttackName
from jobstore.states import SweepState, TrialState
from jobstore.sweeps import Trial
from jobstore.tables import Sweep, SweepEvent

MAX_TRIALS = 200
MAX_GOAL_TRIALS = 50
MAX_PARALLEL = 64

_Values = Annotated[list[Any], Field(min_length=1, max_length=MAX_TRIALS)]


class Grid(BaseModel):
    """The values to combine; each value is checked as the field of the spec that it becomes."""

    model_config = ConfigDict(extra="forbid")

    densities: _Values | None = Field(None, examples=[[0.1, 0.05]])
    nominal_ratios: _Values | None = None
    bits: _Values | None = Field(None, examples=[[8, 4]])
    methods: _Values | None = None
    seeds: _Values | None = None
    fields: dict[str, _Values] | None = Field(
        None,
        max_length=20,
        description="Values of any other field of the spec, by its path.",
        examples=[{"training.rho": [0.001, 0.01]}],
    )


class Goal(BaseModel):
    """What must hold: the lower end of the interval of the robust accuracy is no less than this."""

    model_config = ConfigDict(extra="forbid")

    robust_accuracy: float = Field(gt=0, lt=1, examples=[0.5])
    attack: Literal["worst", AttackName] = Field(
        "worst", description="One of the report's attacks, or the worst case of all of them."
    )


class NewSweep(BaseModel):
    """A sweep on files that were uploaded before: a base spec, and a grid, specs or a goal."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "model_id": "mdl_0197f3a2c5d87c3e9b1a4f60d2e8b7c1",
                    "dataset_id": "dst_0197f3a2c5d87c3e9b1a4f60d2e8b7c1",
                    "spec": {"method": "atmc", "threat": {"norm": "linf", "epsilon": 0.1}},
                    "grid": {"densities": [0.1, 0.05], "bits": [8, 4]},
                }
            ]
        },
    )

    model_id: str
    dataset_id: str
    name: Name | None = Field(None, examples=["LeNet, six points"])
    labels: Labels = Field({}, description="Each trial's labels.")
    spec: dict[str, Any] = Field(
        description="What all trials have of the spec; what the grid gives may be left out."
    )
    grid: Grid | None = None
    specs: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MAX_TRIALS)] | None = (
        Field(None, description="Instead of a grid: partial specs, each laid over `spec`.")
    )
    goal: Goal | None = Field(
        None, description="Instead of both: look for the smallest that holds it."
    )
    minimise: Literal["file_bytes"] | None = Field(
        None, description="What a goal's answer is to have least of; `file_bytes` by default."
    )
    trials: int | None = Field(
        None, ge=2, le=MAX_GOAL_TRIALS, description="A goal's trials at most; 8 by default."
    )
    max_trials: int = Field(
        MAX_TRIALS, ge=1, le=MAX_TRIALS, description="A grid of more trials is refused."
    )
    from_denser: bool = Field(
        True, description="Whether a trial starts from its neighbour of the next larger size."
    )
    max_parallel: int = Field(
        4, ge=1, le=MAX_PARALLEL, description="Trials that are queued or at work at once, at most."
    )
    time_limit_s: float | None = Field(
        None,
        gt=0,
        le=MAX_TIME_LIMIT_S,
        description="Seconds after the first trial began to run at which the sweep ends: trials "
        "that run are cancelled, and no other begins. Without it there is no such limit.",
    )
    trial_time_limit_s: float | None = Field(
        None, gt=0, le=MAX_TIME_LIMIT_S, description="Each trial's `time_limit_s`."
    )
    priority: int = Field(
        0, ge=-MAX_PRIORITY, le=MAX_PRIORITY, description="Each trial's, as a job has it."
    )
    resources: Resources | None = Field(None, description="The devices that trials run on.")
    webhook: NewSweepWebhook | None = Field(
        None,
        description="A webhook of this sweep alone; the answer has the secret that it signs by.",
    )


class Counts(BaseModel):
    """How many trials are in each state; those that validate count as running."""

    planned: int = 0
    queued: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    skipped: int = 0

    @classmethod
    def of(cls, trials: Sequence[Trial]) -> Self:
        """Count the trials."""
        counts = cls()
        for trial in trials:
            running = trial.state is TrialState.VALIDATING
            name = TrialState.RUNNING.value if running else trial.state.value
            setattr(counts, name, getattr(counts, name) + 1)
        return counts


class TrialView(BaseModel):
    """A trial: an ordinary job, once it has begun."""

    index: int
    job_id: str | None
    state: TrialState
    point: dict[str, Any] = Field(
        description="What sets the trial apart, by the path of the field in the spec."
    )
    denser: int | None = Field(description="The trial that it may start from.")
    confirms: int | None = Field(
        description="The trial whose figures this one confirms on the test split."
    )
    reason: str | None = Field(
        description="Why it was skipped or cancelled, or why a goal tried it."
    )
    stage: str | None
    progress: float
    eta_s: float | None
    headline: Headline | None
    error: JobError | None
    links: dict[str, str]

    @classmethod
    def of(cls, trial: Trial) -> Self:
        """Show the rows of the trial and of its job."""
        row, job = trial.row, trial.job
        return cls(
            index=row.index,
            job_id=row.job_id,
            state=trial.state,
            point=row.point,
            denser=row.denser,
            confirms=row.confirms,
            reason=row.reason,
            stage=job.stage if job else None,
            progress=job.progress if job else 0.0,
            eta_s=job.eta_s if job else None,
            headline=Headline.of(job) if job else None,
            error=JobError.of(job) if job else None,
            links={"job": f"/jobs/{job.id}"} if job else {},
        )


class SweepView(BaseModel):
    """A sweep as it is now, without its trials."""

    id: str = Field(examples=["sweep_0197f3a2c5d87c3e9b1a4f60d2e8b7c1"])
    name: str | None
    labels: dict[str, str] = Field({}, description="Each trial's labels.")
    state: SweepState
    model_id: str
    dataset_id: str
    spec: dict[str, Any]
    grid: dict[str, Any] | None
    specs: list[dict[str, Any]] | None
    goal: Goal | None
    minimise: str | None
    trial_limit: int | None = Field(description="A goal's trials at most.")
    priority: int
    resources: Resources | None
    max_parallel: int
    time_limit_s: float | None
    trial_time_limit_s: float | None
    from_denser: bool
    counts: Counts
    progress: float = Field(ge=0, le=1, description="Share of the whole sweep that is done.")
    eta_s: float | None = Field(description="Seconds to the end, from the trials so far.")
    seconds: float | None = Field(description="Seconds since the first trial began to run.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    cancel_requested_at: datetime | None
    front: list[int] = Field(
        description="The trials on the Pareto front of robust accuracy, clean accuracy and file "
        "bytes, and latency where all have it."
    )
    best: int | None = Field(
        description="Of a grid, the trial of the greatest robust accuracy, the smallest of these; "
        "of a goal, its answer."
    )
    message: str | None = Field(description="How it ended, in words, where there is more to say.")
    links: dict[str, str]

    @classmethod
    def of(cls, sweep: Sweep, trials: Sequence[Trial], at: datetime) -> Self:
        """Show the rows of the sweep and its trials as they are `at` this moment."""
        return cls(**_shown(sweep, trials, at))


class SweepWithTrials(SweepView):
    """A sweep as it is now."""

    trials: list[TrialView]

    @classmethod
    def of(cls, sweep: Sweep, trials: Sequence[Trial], at: datetime) -> Self:
        """Show the rows of the sweep and its trials as they are `at` this moment."""
        return cls(**_shown(sweep, trials, at), trials=list(map(TrialView.of, trials)))


class NewSweepView(SweepWithTrials):
    """A sweep as it is answered when it is made."""

    webhook: WebhookOfJob | None = Field(
        None, description="Its own webhook, with its secret; only of a sweep that has one."
    )


class SweepPage(BaseModel):
    """Some sweeps, newest first; `next` goes back as `cursor`."""

    data: list[SweepView]
    has_more: bool
    next: str | None


class SweepEventView(ShownEvent):
    """Something that happened to a sweep; the other fields depend on the type."""

    model_config = optional_fields(
        state="string",
        message=["string", "null"],
        index="integer",
        job_id=["string", "null"],
        reason=["string", "null"],
    )

    type: str = Field(examples=["sweep", "trial"])

    @classmethod
    def of(cls, event: SweepEvent) -> Self:
        """Show the row of an event."""
        fixed = {"seq": event.seq, "time": event.time, "type": event.type}
        return cls(**{**event.data, **fixed})


class SweepEventPage(BaseModel):
    """Some events, oldest first; `next` goes back as `after`."""

    data: list[SweepEventView]
    has_more: bool
    next: int | None


def _shown(sweep: Sweep, trials: Sequence[Trial], at: datetime) -> dict[str, Any]:
    itself, progress = f"/sweeps/{sweep.id}", Progress.of(sweep, trials, at)
    resources = None
    if sweep.device is not None:
        resources = Resources.model_validate({"device": sweep.device, "gpus": sweep.gpus or None})
    asked = dict(sweep.asked)
    return {
        "id": sweep.id,
        "name": sweep.name,
        "state": sweep.state,
        "model_id": sweep.model_id,
        "dataset_id": sweep.dataset_id,
        **asked,
        "priority": sweep.priority,
        "resources": resources,
        "max_parallel": sweep.max_parallel,
        "time_limit_s": sweep.time_limit_s,
        "trial_time_limit_s": sweep.trial_time_limit_s,
        "counts": Counts.of(trials),
        **vars(progress),
        "created_at": sweep.created_at,
        "started_at": sweep.started_at,
        "finished_at": sweep.finished_at,
        "cancel_requested_at": sweep.cancel_requested_at,
        "message": sweep.message,
        "links": {
            "self": itself,
            "events": f"{itself}/events",
            "cancel": f"{itself}/cancel",
            "jobs": f"/jobs?sweep_id={sweep.id}",
            "model": f"/models/{sweep.model_id}",
            "dataset": f"/datasets/{sweep.dataset_id}",
        },
    }
