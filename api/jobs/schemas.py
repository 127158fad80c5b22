"""How the API shows a job, and the service's own fields of a new one."""

from collections.abc import Collection
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from api.describing import Described
from api.jobs.acceptance import Threshold, acceptance
from api.jobs.headline import Headline
from api.jobs.resources import Resources, Waiting
from api.models.schemas import Normalization
from api.sources.schemas import NewResults, NewSource, ResultsView
from api.webhooks.schemas import NewWebhook, WebhookOfJob
from jobstore.states import JobState
from jobstore.tables import Event, Job
from jobstore.workers import Offer

MAX_PRIORITY = 100
MAX_TIME_LIMIT_S = 30 * 86_400


class NewJob(Described):
    """The service's own fields of a job, beside the method's spec."""

    priority: int = Field(
        0,
        ge=-MAX_PRIORITY,
        le=MAX_PRIORITY,
        description="Among your own waiting jobs, the one with the highest priority is taken "
        "first, then the oldest. A priority gains nothing over the jobs of others.",
    )
    time_limit_s: float | None = Field(
        None,
        gt=0,
        le=MAX_TIME_LIMIT_S,
        description="Seconds of running after which the job fails; default: the service's.",
    )
    resources: Resources | None = Field(
        None,
        description="The devices to run on; by default the first free worker takes the job.",
        examples=[{"device": "gpu", "gpus": 2}],
    )
    start_from: str | None = Field(
        None,
        min_length=1,
        description="A job of the same model and data set that has succeeded, and was larger: "
        "compression starts from its `model.atmc` and makes it smaller, in fewer epochs.",
    )
    results: NewResults | None = Field(
        None, description="A folder elsewhere that the job's files are put into, too."
    )
    webhook: NewWebhook | None = Field(
        None,
        description="A webhook of this job alone; the answer has the secret that it signs by.",
    )


class NewJobByIds(NewJob):
    """A job on files that were uploaded before, or that lie elsewhere."""

    model_id: str | None = None
    dataset_id: str | None = None
    model: NewSource | None = Field(None, description="Instead of `model_id`.")
    dataset: NewSource | None = Field(None, description="Instead of `dataset_id`.")
    architecture: str | None = Field(None, description="That of a `model` that lies elsewhere.")
    normalization: Normalization | None = None


class NewJobWithFiles(NewJob):
    """A job whose files come in the same request."""

    architecture: str = Field(examples=["lenet"])
    normalization: Normalization | None = None


class JobError(BaseModel):
    """Why a job failed."""

    code: str
    message: str
    param: str | None

    @classmethod
    def of(cls, job: Job) -> Self | None:
        """Show what the job's row says; None unless it has failed."""
        if job.error_code is None or job.error_message is None:
            return None
        return cls(code=job.error_code, message=job.error_message, param=job.error_param)


class JobView(BaseModel):
    """A job as it is now."""

    id: str = Field(examples=["job_0197f3a2c5d87c3e9b1a4f60d2e8b7c1"])
    name: str | None
    labels: dict[str, str]
    metadata: dict[str, Any]
    state: JobState
    model_id: str
    dataset_id: str
    start_from: str | None = Field(description="The denser job whose network it starts from.")
    spec: dict[str, Any] = Field(description="The method's spec, as it was sent.")
    priority: int
    time_limit_s: float
    resources: Resources | None
    attempt: int = Field(description="How often a worker has taken the job up.")
    stage: str | None
    epoch: int | None = Field(description="Epochs of the stage that are done.")
    epochs: int | None
    progress: float = Field(ge=0, le=1, description="Share of the whole job that is done.")
    eta_s: float | None = Field(description="Seconds to the end, from measured epochs.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    cancel_requested_at: datetime | None
    waiting: Waiting | None = Field(description="What a queued job waits for.")
    headline: Headline | None = Field(description="The figures of a job that has succeeded.")
    acceptance: list[Threshold] | None = Field(
        description="Each threshold of `accept`, met or missed, once the job has succeeded; "
        "the report says so with intervals. A job that misses one has not failed."
    )
    results: ResultsView | None = Field(description="Where its files are put, too.")
    error: JobError | None = Field(description="Why the job has failed, if it has.")
    trace_id: str | None = Field(
        description="The trace that tells where the job's time went, if the service keeps traces.",
        examples=["4bf92f3577b34da6a3ce929d0e0e4736"],
    )
    sweep_id: str | None = Field(description="The sweep that the job is a trial of, if it is one.")
    links: dict[str, str]

    @classmethod
    def of(cls, job: Job, offers: Collection[Offer]) -> Self:
        """Show the job's row; `offers` are those of the known workers (`offers_for`)."""
        headline = Headline.of(job)
        return cls(
            id=job.id,
            name=job.name,
            labels=job.labels,
            metadata=job.notes,
            state=job.state,
            model_id=job.model_id,
            dataset_id=job.dataset_id,
            start_from=job.start_from,
            spec=job.spec,
            priority=job.priority,
            time_limit_s=job.time_limit_s,
            resources=Resources.of(job),
            attempt=job.attempt,
            stage=job.stage,
            epoch=job.epoch,
            epochs=job.epochs,
            progress=job.progress,
            eta_s=job.eta_s,
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            cancel_requested_at=job.cancel_requested_at,
            waiting=Waiting.of(job, offers),
            headline=headline,
            acceptance=acceptance(job.spec, headline),
            results=ResultsView.model_validate(job.results) if job.results else None,
            error=JobError.of(job),
            trace_id=job.trace_id,
            sweep_id=job.sweep_id,
            links=_links(job),
        )


class NewJobView(JobView):
    """A job as it is answered when it is made."""

    webhook: WebhookOfJob | None = Field(
        None, description="Its own webhook, with its secret; only of a job that has one."
    )


class JobPage(BaseModel):
    """Some jobs; `next` goes back as `cursor`."""

    data: list[JobView]
    has_more: bool
    next: str | None


class ShownEvent(BaseModel):
    """Something that happened; the other fields depend on the type."""

    model_config = ConfigDict(extra="allow")

    seq: int = Field(description="Counts from 1 within the job or sweep, without gaps.")
    time: datetime
    type: str


def optional_fields(**types: str | list[str]) -> ConfigDict:
    """Return what documents fields that only some types of events have, by their JSON types."""
    return ConfigDict(
        json_schema_extra=lambda schema: schema["properties"].update(
            {name: {"type": of} for name, of in types.items()}
        )
    )


class EventView(ShownEvent):
    """Something that happened to a job; the other fields depend on the type."""

    model_config = optional_fields(
        state="string",
        stage="string",
        status="string",
        job_id=["string", "null"],
        epoch="integer",
        epochs="integer",
        progress="number",
        eta_s=["number", "null"],
        loss=["number", "null"],
        validation_accuracy=["number", "null"],
        validation_images=["integer", "null"],
        code=["string", "null"],
        message=["string", "null"],
        param=["string", "null"],
    )

    type: str = Field(examples=["state", "stage", "progress", "metric", "resumed", "error"])
    attempt: int
    trace_id: str | None = Field(description="The job's trace, if the service keeps traces.")

    @classmethod
    def of(cls, event: Event, job: Job) -> Self:
        """Show the row of an event of the job."""
        fixed = {
            "seq": event.seq,
            "time": event.time,
            "type": event.type,
            "attempt": event.attempt,
            "trace_id": job.trace_id,
        }
        return cls(**{**event.data, **fixed})


class EventPage(BaseModel):
    """Some events, oldest first; `next` goes back as `after`."""

    data: list[EventView]
    has_more: bool
    next: int | None


def _links(job: Job) -> dict[str, str]:
    itself = f"/jobs/{job.id}"
    return {
        "self": itself,
        "events": f"{itself}/events",
        "cancel": f"{itself}/cancel",
        "retry": f"{itself}/retry",
        "report": f"{itself}/report",
        "artifacts": f"{itself}/artifacts",
        "model": f"/models/{job.model_id}",
        "dataset": f"/datasets/{job.dataset_id}",
    }
