"""The tables, as mapped classes. Alembic's migrations make them; a test holds the two together."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    Double,
    Enum,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    TextClause,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from jobstore.dialects import UtcDateTime, clock
from jobstore.states import JobState

Document = dict[str, Any]
Figure = bool | int | float | None

DEFAULT_TENANT = "default"
"""Whose everything is until there are keys."""

_id = String(40)
_tenant = String(64)
_sha256 = String(64)
_state = Enum(
    JobState,
    name="state",
    native_enum=False,
    create_constraint=True,
    length=16,
    values_callable=lambda states: [state.value for state in states],
)


class Base(DeclarativeBase):
    """Constraints are named by rule, so that a migration can name them on both databases."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )
    type_annotation_map: ClassVar = {
        datetime: UtcDateTime(),
        # none_as_null: an absent document is NULL, not the JSON text "null".
        Document: JSON(none_as_null=True),
        int: BigInteger(),
        float: Double(),
    }


class Tenant(Base):
    """A team that shares the service, under the name that its keys carry.

    What is None is the service's own (`jobstore.settings`). `served_at` is when a worker last took
    one of its jobs; who was served longest ago comes next.
    """

    __tablename__ = "tenants"

    id: Mapped[str] = mapped_column(_tenant, primary_key=True)
    created_at: Mapped[datetime] = mapped_column(insert_default=clock())
    served_at: Mapped[datetime | None]
    max_stored_bytes: Mapped[int | None]
    max_queued_jobs: Mapped[int | None]
    max_running_jobs: Mapped[int | None]
    requests_per_minute: Mapped[int | None]
    keep_uploads_s: Mapped[float | None]
    keep_checkpoints_s: Mapped[float | None]
    keep_artifacts_s: Mapped[float | None]
    keep_events_s: Mapped[float | None]


class Key(Base):
    """What a caller shows. Of the key itself only the SHA-256 (hex) is here."""

    __tablename__ = "keys"

    id: Mapped[str] = mapped_column(_id, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(_tenant, ForeignKey(Tenant.id))
    hash: Mapped[str] = mapped_column(_sha256, unique=True)
    scopes: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(insert_default=clock())
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class Owned:
    """A row of one tenant; `jobstore.tenancy` fills it in and keeps the others from seeing it."""

    # The database's default is for workers of a version that knows no tenants.
    tenant_id: Mapped[str] = mapped_column(_tenant, server_default=DEFAULT_TENANT)


class Model(Owned, Base):
    """An uploaded network: its bytes are the blob `sha256`; `summary` is what its header says.

    Once it has expired (`expired_at`) the bytes are gone and it stands for the jobs that used it.
    Those uploaded before there was a summary have an empty one.
    """

    __tablename__ = "models"
    __table_args__ = (Index(None, "tenant_id", "sha256"),)

    id: Mapped[str] = mapped_column(_id, primary_key=True)
    created_at: Mapped[datetime] = mapped_column(insert_default=clock())
    filename: Mapped[str] = mapped_column(Text)
    format: Mapped[str] = mapped_column(String(16))
    architecture: Mapped[str] = mapped_column(Text)
    normalization: Mapped[Document | None]
    summary: Mapped[Document] = mapped_column(server_default="{}")
    sha256: Mapped[str] = mapped_column(_sha256)
    bytes: Mapped[int]
    expired_at: Mapped[datetime | None]


class Dataset(Owned, Base):
    """An uploaded data set, like a `Model`; `summary` is what its headers say."""

    __tablename__ = "datasets"
    __table_args__ = (Index(None, "tenant_id", "sha256"),)

    id: Mapped[str] = mapped_column(_id, primary_key=True)
    created_at: Mapped[datetime] = mapped_column(insert_default=clock())
    filename: Mapped[str] = mapped_column(Text)
    summary: Mapped[Document]
    sha256: Mapped[str] = mapped_column(_sha256)
    bytes: Mapped[int]
    expired_at: Mapped[datetime | None]


class Blob(Owned, Base):
    """Bytes in the object store; see `jobstore.blobs`."""

    __tablename__ = "blobs"

    tenant_id: Mapped[str] = mapped_column(_tenant, primary_key=True, server_default=DEFAULT_TENANT)
    sha256: Mapped[str] = mapped_column(_sha256, primary_key=True)
    bytes: Mapped[int]
    touched_at: Mapped[datetime]


class IncomingUpload(Owned, Base):
    """An upload that comes in several requests: `received` of `bytes` bytes have.

    A direct one has the digest that it must have and the key that its owner puts it under; a
    resumable one has chunks. Whatever is not used by `expires_at` is deleted.
    """

    __tablename__ = "uploads"
    __table_args__ = (Index(None, "expires_at"),)

    id: Mapped[str] = mapped_column(_id, primary_key=True)
    created_at: Mapped[datetime] = mapped_column(insert_default=clock())
    expires_at: Mapped[datetime]
    filename: Mapped[str] = mapped_column(Text)
    bytes: Mapped[int]
    received: Mapped[int]
    tus_metadata: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str | None] = mapped_column(_sha256)
    direct_key: Mapped[str | None] = mapped_column(Text)


class UploadChunk(Owned, Base):
    """A piece of a resumable upload: an object of its own."""

    __tablename__ = "upload_chunks"

    upload_id: Mapped[str] = mapped_column(_id, ForeignKey(IncomingUpload.id), primary_key=True)
    offset: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    key: Mapped[str] = mapped_column(Text)
    bytes: Mapped[int]


class Headline:
    """The figures a finished job is judged by; all None before it has succeeded.

    Accuracies are fractions of the test split; sizes are in bytes; `seconds` is the compute time;
    `accepted` tells whether every threshold of the spec is met, None if it names none. A job that
    compresses nothing leaves those of the compressed network None.
    """

    clean_accuracy_before: Mapped[float | None]
    clean_accuracy_after: Mapped[float | None]
    fgsm_accuracy_before: Mapped[float | None]
    fgsm_accuracy_after: Mapped[float | None]
    pgd_accuracy_before: Mapped[float | None]
    pgd_accuracy_after: Mapped[float | None]
    robust_accuracy_before: Mapped[float | None]
    robust_accuracy_after: Mapped[float | None]
    k: Mapped[int | None]
    nonzeros: Mapped[int | None]
    nonzeros_u: Mapped[int | None]
    nonzeros_v: Mapped[int | None]
    nonzeros_c: Mapped[int | None]
    bits: Mapped[int | None]
    max_distinct_values: Mapped[int | None]
    dense_bytes: Mapped[int | None]
    file_bytes: Mapped[int | None]
    file_ratio: Mapped[float | None]
    nominal_ratio: Mapped[float | None]
    seconds: Mapped[float | None]
    accepted: Mapped[bool | None]


# Of the index that a claim reads: it has to say it in these very words to be given it.
WAITING = text("state = 'queued'")


def _where(condition: TextClause) -> dict[str, Any]:
    """Index only the few rows that are looked for, so that those of years do not weigh."""
    return dict.fromkeys(("postgresql_where", "sqlite_where"), condition)


HEADLINE_FIELDS: tuple[str, ...] = tuple(Headline.__annotations__)


class Job(Headline, Owned, Base):
    """A job: the truth about it. A broker's message is only a wake-up.

    `attempt` numbers the claims and is the fencing token; it only grows. `failed_attempts` counts
    the claims that ended in a crash or a lost worker, and is what `max_attempts` limits: an attempt
    given back at a deploy costs nothing. `run_seconds` adds up over the attempts and is what
    `time_limit_s` limits. `device` (`cpu`, `gpu`, None: any) and `gpus` are what it may run on; see
    `jobstore.workers`. `reported` counts the child's events of this attempt. `retries` counts how
    often its user had an ended job queued again, which starts both counts anew. `rank` is minus the
    priority: so a plain index has them in the order in which they are taken.
    `previous_checkpoint_key` is there in case the newest is broken.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        Index(None, "tenant_id", "id"),
        Index(None, "tenant_id", "state", "id"),
        Index(None, "tenant_id", "finished_at"),
        Index(None, "model_id"),
        Index(None, "dataset_id"),
        Index("ix_jobs_waiting", "tenant_id", "rank", "id", **_where(WAITING)),
        Index(None, "lease_expires_at"),
        Index(
            "ix_jobs_kept_checkpoints",
            "finished_at",
            **_where(text("checkpoint_key IS NOT NULL AND finished_at IS NOT NULL")),
        ),
    )

    id: Mapped[str] = mapped_column(_id, primary_key=True)
    name: Mapped[str | None] = mapped_column(Text)
    spec: Mapped[Document]
    model_id: Mapped[str] = mapped_column(_id, ForeignKey(Model.id))
    dataset_id: Mapped[str] = mapped_column(_id, ForeignKey(Dataset.id))

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

    @property
    def priority(self) -> int:
        """Of a tenant's jobs the one with the highest is taken first."""
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

    @property
    def headline(self) -> dict[str, Figure] | None:
        """The figures by name once the job has succeeded, else None."""
        if self.state is not JobState.SUCCEEDED:
            return None
        return {name: getattr(self, name) for name in HEADLINE_FIELDS}


class Event(Owned, Base):
    """Something that happened to a job; `seq` counts from 1 within the job, without gaps.

    `attempt` is the attempt that wrote it, 0 before the first claim; `data` is the event without
    its type and time.
    """

    __tablename__ = "events"

    job_id: Mapped[str] = mapped_column(_id, ForeignKey(Job.id), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    time: Mapped[datetime] = mapped_column(insert_default=clock())
    type: Mapped[str] = mapped_column(String(32))
    attempt: Mapped[int]
    data: Mapped[Document]


class Webhook(Owned, Base):
    """Whom to tell of which events (divided by spaces): all the tenant's, or those of one job.

    The secret signs what is sent, so it is here as it is. `failed_deliveries` counts those given up
    in a row.
    """

    __tablename__ = "webhooks"
    __table_args__ = (Index(None, "tenant_id", "job_id"), Index(None, "job_id"))

    id: Mapped[str] = mapped_column(_id, primary_key=True)
    created_at: Mapped[datetime] = mapped_column(insert_default=clock())
    job_id: Mapped[str | None] = mapped_column(_id, ForeignKey(Job.id))
    url: Mapped[str] = mapped_column(Text)
    events: Mapped[str] = mapped_column(Text)
    secret: Mapped[str] = mapped_column(Text)
    failed_deliveries: Mapped[int]
    disabled_at: Mapped[datetime | None]
    disabled_reason: Mapped[str | None] = mapped_column(Text)


class WebhookDelivery(Owned, Base):
    """Something to tell a webhook; `due_at` is None once it was delivered or given up.

    `attempts` numbers the tries and is the fencing token, `failures` counts those since it was last
    asked for. `seq` is the event's number in the job.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index(None, "webhook_id", "id"),
        Index("ix_webhook_deliveries_due", "due_at", **_where(text("due_at IS NOT NULL"))),
    )

    id: Mapped[str] = mapped_column(_id, primary_key=True)
    created_at: Mapped[datetime] = mapped_column(insert_default=clock())
    webhook_id: Mapped[str] = mapped_column(_id, ForeignKey(Webhook.id))
    job_id: Mapped[str | None] = mapped_column(_id, ForeignKey(Job.id))
    seq: Mapped[int]
    type: Mapped[str] = mapped_column(String(32))
    data: Mapped[Document]
    attempts: Mapped[int]
    failures: Mapped[int]
    due_at: Mapped[datetime | None] = mapped_column(insert_default=clock())
    held_until: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]
    given_up_at: Mapped[datetime | None]


class WebhookAttempt(Owned, Base):
    """One try of a delivery: an HTTP status, or the error that kept one from coming."""

    __tablename__ = "webhook_attempts"

    delivery_id: Mapped[str] = mapped_column(_id, ForeignKey(WebhookDelivery.id), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(insert_default=clock())
    status: Mapped[int | None]
    error: Mapped[str | None] = mapped_column(Text)
    seconds: Mapped[float]


class Artifact(Owned, Base):
    """A file that a job made: its bytes are the blob `sha256`."""

    __tablename__ = "artifacts"
    __table_args__ = (Index(None, "tenant_id", "sha256"),)

    job_id: Mapped[str] = mapped_column(_id, ForeignKey(Job.id), primary_key=True)
    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(insert_default=clock())
    media_type: Mapped[str] = mapped_column(String(255))
    sha256: Mapped[str] = mapped_column(_sha256)
    bytes: Mapped[int]


class CatalogueRow(Base):
    """One thing that may be asked for, as the workers published it from `atmc_core`."""

    __tablename__ = "catalogue"

    kind: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    document: Mapped[Document]
    published_at: Mapped[datetime] = mapped_column(insert_default=clock())


class WorkerRow(Base):
    """A worker that is there: how many GPUs it has, and when it was last heard of."""

    __tablename__ = "workers"

    owner: Mapped[str] = mapped_column(String(255), primary_key=True)
    gpus: Mapped[int]
    seen_at: Mapped[datetime]


class IdempotencyKey(Owned, Base):
    """A request with an `Idempotency-Key`, and once there is one its answer.

    `scope` is the call ("POST /jobs"), `fingerprint` a digest of the request's content; `holder`
    is the one of several alike that acts.
    """

    __tablename__ = "idempotency_keys"

    tenant_id: Mapped[str] = mapped_column(_tenant, primary_key=True, server_default=DEFAULT_TENANT)
    scope: Mapped[str] = mapped_column(String(255), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(insert_default=clock())
    fingerprint: Mapped[str] = mapped_column(_sha256)
    holder: Mapped[str | None] = mapped_column(String(32))
    status: Mapped[int | None]
    headers: Mapped[Document | None]
    body: Mapped[Document | None]


class Metric(Base):
    """A sum over what has happened, or what was `told_at` a moment: see `jobstore.metrics`.

    `labels` is a JSON object, sorted.
    """

    __tablename__ = "metrics"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    labels: Mapped[str] = mapped_column(String(255), primary_key=True)
    value: Mapped[float]
    told_at: Mapped[datetime | None]
