"""How the API shows webhooks and their deliveries."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal, Self, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, computed_field

from api.views import LinkedView, RowView
from jobstore.destinations import MAX_URL
from jobstore.tables import WebhookAttempt, WebhookDelivery
from jobstore.webhooks import DEFAULT_EVENTS, EVENTS, SWEEP_EVENTS

EventName = Literal[
    "job.queued",
    "job.validating",
    "job.running",
    "job.succeeded",
    "job.failed",
    "job.cancelled",
    "sweep.succeeded",
    "sweep.failed",
    "sweep.cancelled",
    "webhook.disabled",
    "key.expiring",
]


def _each_once(events: list[str]) -> list[str]:
    if len(set(events)) < len(events):
        raise ValueError("an event is named twice")
    return events


Url = Annotated[
    str,
    Field(
        max_length=MAX_URL,
        description="https or http, of a host that the service may call.",
        examples=["https://hooks.example.com/atmc"],
    ),
]
Events = Annotated[
    list[EventName], Field(min_length=1, max_length=len(EVENTS)), AfterValidator(_each_once)
]


class NewWebhook(BaseModel):
    """A webhook to make: its URL, and the events that it is told."""

    model_config = ConfigDict(extra="forbid")

    url: Url
    events: Events = Field(
        cast(list[EventName], list(DEFAULT_EVENTS)), examples=[["job.succeeded", "job.failed"]]
    )


SweepEventName = Literal["sweep.succeeded", "sweep.failed", "sweep.cancelled"]


class NewSweepWebhook(BaseModel):
    """A webhook of a sweep to make: its URL, and the events that it is told."""

    model_config = ConfigDict(extra="forbid")

    url: Url
    events: Annotated[
        list[SweepEventName],
        Field(min_length=1, max_length=len(SWEEP_EVENTS)),
        AfterValidator(_each_once),
    ] = Field(cast(list[SweepEventName], list(SWEEP_EVENTS)))


class WebhookChanges(BaseModel):
    """Changes to a webhook; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    url: Url | None = None
    events: Events | None = None
    active: Literal[True] | None = Field(
        None, description="True switches a webhook that was switched off on again."
    )


class WebhookView(LinkedView):
    """A webhook."""

    id: str = Field(examples=["whk_0197f3a2c5d87c3e9b1a4f60d2e8b7c1"])
    url: str
    events: Annotated[list[str], BeforeValidator(str.split)]
    job_id: str | None = Field(
        description="The one job that it is told of; null: it is told of all, or of a sweep."
    )
    sweep_id: str | None = Field(description="The one sweep that it is told of.")
    created_at: datetime
    disabled_at: datetime | None
    disabled_reason: str | None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def active(self) -> bool:
        """Whether the webhook is switched on; one that fails for long is switched off."""
        return self.disabled_at is None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def links(self) -> dict[str, str]:
        """Paths of the webhook and of what it was told."""
        return {"self": self._path(), "deliveries": f"{self._path()}/deliveries"}

    def _path(self) -> str:
        return f"/webhooks/{self.id}"


class WebhookWithSecret(WebhookView):
    """A webhook as it is shown once, when it is made."""

    secret: str = Field(
        description="The secret that signs messages, by Standard Webhooks; it is not shown again."
    )


class WebhookOfJob(WebhookView):
    """The webhook of a new job or sweep."""

    secret: str | None = Field(
        description="The secret that signs messages, by Standard Webhooks; it is not shown again, "
        "and null where the answer is repeated under an `Idempotency-Key`."
    )


class WebhookList(BaseModel):
    """All webhooks but those of single jobs."""

    data: list[WebhookView]
    has_more: bool = False
    next: None = None


class DeliveryView(LinkedView):
    """A message to a webhook; its id is sent as `webhook-id`."""

    id: str = Field(examples=["msg_0197f3a2c5d87c3e9b1a4f60d2e8b7c1"])
    type: str
    webhook_id: str = Field(exclude=True)
    job_id: str | None
    sweep_id: str | None
    created_at: datetime
    attempts: int
    next_attempt_at: datetime | None = Field(validation_alias="due_at")
    delivered_at: datetime | None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def state(self) -> Literal["waiting", "delivered", "given_up"]:
        """Whether the message waits, has been delivered, or was given up."""
        if self.next_attempt_at is not None:
            return "waiting"
        return "given_up" if self.delivered_at is None else "delivered"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def links(self) -> dict[str, str]:
        """Paths of the delivery and of telling it again."""
        return {"self": self._path(), "redeliver": f"{self._path()}/redeliver"}

    def _path(self) -> str:
        return f"/webhooks/{self.webhook_id}/deliveries/{self.id}"


class AttemptView(RowView):
    """One try of a delivery."""

    number: int
    at: datetime
    status: int | None = Field(description="The receiver's answer; null if none came.")
    error: str | None
    seconds: float


class DeliveryWithAttempts(DeliveryView):
    """A delivery with its tries."""

    log: list[AttemptView]

    @classmethod
    def with_log(cls, delivery: WebhookDelivery, attempts: Sequence[WebhookAttempt]) -> Self:
        """Show the delivery's rows."""
        log = [AttemptView.model_validate(each) for each in attempts]
        return cls(**vars(DeliveryView.model_validate(delivery)), log=log)


class DeliveryPage(BaseModel):
    """Some deliveries, newest first; `next` goes back as `cursor`."""

    data: list[DeliveryView]
    has_more: bool
    next: str | None
