"""What a webhook looks like from outside."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Self, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from jobstore.destinations import MAX_URL
from jobstore.tables import Webhook, WebhookAttempt, WebhookDelivery
from jobstore.webhooks import DEFAULT_EVENTS, EVENTS

EventName = Literal[
    "job.queued",
    "job.validating",
    "job.running",
    "job.succeeded",
    "job.failed",
    "job.cancelled",
    "webhook.disabled",
]


def _each_once(events: list[EventName]) -> list[EventName]:
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
    """Where to tell of which events."""

    model_config = ConfigDict(extra="forbid")

    url: Url
    events: Events = Field(
        cast(list[EventName], list(DEFAULT_EVENTS)), examples=[["job.succeeded", "job.failed"]]
    )


class WebhookChanges(BaseModel):
    """What to change of a webhook; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    url: Url | None = None
    events: Events | None = None
    active: Literal[True] | None = Field(
        None, description="True has one that was switched off told again."
    )


class WebhookView(BaseModel):
    """A webhook."""

    id: str = Field(examples=["whk_0197f3a2c5d87c3e9b1a4f60d2e8b7c1"])
    url: str
    events: list[str]
    job_id: str | None = Field(description="Whose events alone it is told, if one's.")
    active: bool
    created_at: datetime
    disabled_at: datetime | None
    disabled_reason: str | None
    links: dict[str, str]

    @classmethod
    def of(cls, webhook: Webhook) -> Self:
        """Show the webhook's row."""
        return cls(**_fields(webhook))


class WebhookWithSecret(WebhookView):
    """A webhook as it is shown once, when it is made."""

    secret: str = Field(
        description="Signs what is sent, as Standard Webhooks has it; it is not shown again."
    )

    @classmethod
    def of(cls, webhook: Webhook) -> Self:
        """Show the webhook's row, and its secret."""
        return cls(**_fields(webhook), secret=webhook.secret)


class WebhookList(BaseModel):
    """All webhooks but those of single jobs."""

    data: list[WebhookView]
    has_more: bool = False
    next: None = None


class DeliveryView(BaseModel):
    """Something that a webhook was or is to be told; its id is the `webhook-id` that is sent."""

    id: str = Field(examples=["msg_0197f3a2c5d87c3e9b1a4f60d2e8b7c1"])
    type: str
    job_id: str | None
    created_at: datetime
    state: Literal["waiting", "delivered", "given_up"]
    attempts: int
    next_attempt_at: datetime | None
    delivered_at: datetime | None
    links: dict[str, str]

    @classmethod
    def of(cls, delivery: WebhookDelivery) -> Self:
        """Show the delivery's row."""
        return cls(**_delivery_fields(delivery))


class AttemptView(BaseModel):
    """One try."""

    number: int
    at: datetime
    status: int | None = Field(description="What the receiver answered, if it did.")
    error: str | None
    seconds: float


class DeliveryWithAttempts(DeliveryView):
    """A delivery, and how it was tried."""

    log: list[AttemptView]

    @classmethod
    def with_log(cls, delivery: WebhookDelivery, attempts: Sequence[WebhookAttempt]) -> Self:
        """Show the delivery's rows."""
        log = [AttemptView.model_validate(each, from_attributes=True) for each in attempts]
        return cls(**_delivery_fields(delivery), log=log)


class DeliveryPage(BaseModel):
    """Some deliveries, newest first; `next` goes back as `cursor`."""

    data: list[DeliveryView]
    has_more: bool
    next: str | None


def _fields(webhook: Webhook) -> dict[str, Any]:
    itself = f"/webhooks/{webhook.id}"
    return {
        "id": webhook.id,
        "url": webhook.url,
        "events": webhook.events.split(),
        "job_id": webhook.job_id,
        "active": webhook.disabled_at is None,
        "created_at": webhook.created_at,
        "disabled_at": webhook.disabled_at,
        "disabled_reason": webhook.disabled_reason,
        "links": {"self": itself, "deliveries": f"{itself}/deliveries"},
    }


def _delivery_fields(delivery: WebhookDelivery) -> dict[str, Any]:
    itself = f"/webhooks/{delivery.webhook_id}/deliveries/{delivery.id}"
    return {
        "id": delivery.id,
        "type": delivery.type,
        "job_id": delivery.job_id,
        "created_at": delivery.created_at,
        "state": "waiting"
        if delivery.due_at is not None
        else "delivered"
        if delivery.delivered_at is not None
        else "given_up",
        "attempts": delivery.attempts,
        "next_attempt_at": delivery.due_at,
        "delivered_at": delivery.delivered_at,
        "links": {"self": itself, "redeliver": f"{itself}/redeliver"},
    }
