"""Webhooks: who is told of which events, and the deliveries that tell them.

A delivery is written in the transaction of the event that it tells of, so none is lost and none is
told of what did not happen; it is sent by `keeper.webhooks` (see `jobstore.deliveries`).
"""

import base64
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, bindparam, delete, func, or_, select
from sqlalchemy.orm import Session

from jobstore.cursors import decode_id, encode_cursor
from jobstore.dialects import clock
from jobstore.errors import NotFound, TooManyWebhooks, WebhookDisabled
from jobstore.ids import new_delivery_id, new_webhook_id
from jobstore.states import FINAL, JobState, SweepState
from jobstore.tables import (
    Document,
    Job,
    Key,
    Sweep,
    Webhook,
    WebhookAttempt,
    WebhookDelivery,
)

DISABLED, KEY_EXPIRING = "webhook.disabled", "key.expiring"
SWEEP_EVENTS: tuple[str, ...] = tuple(
    f"sweep.{state.value}" for state in SweepState if state is not SweepState.RUNNING
)
"""What the webhook of a sweep is told."""

EVENTS: tuple[str, ...] = (
    *(f"job.{state.value}" for state in JobState),
    *SWEEP_EVENTS,
    DISABLED,
    KEY_EXPIRING,
)
"""The names of all events that a webhook may be told."""

DEFAULT_EVENTS: tuple[str, ...] = tuple(f"job.{s.value}" for s in JobState if s in FINAL)

MAX_WEBHOOKS = 20
"""The most webhooks of a tenant, but those of single jobs and sweeps: each change reads them."""

SECRET_PREFIX = "whsec_"


@dataclass(frozen=True)
class NewWebhook:
    """A webhook to make: its URL has been checked, its secret is sealed (`jobstore.vault`)."""

    url: str
    events: Collection[str]
    secret: str


@dataclass(frozen=True)
class DeliveryPage:
    """Some deliveries, and the cursor of those after them (None: there are no more)."""

    deliveries: Sequence[WebhookDelivery]
    next: str | None


def create_webhook(
    session: Session, new: NewWebhook, job: Job | None = None, sweep: Sweep | None = None
) -> Webhook:
    """Record a webhook of the tenant, or of a job or sweep of its; raises `TooManyWebhooks`."""
    if job is None and sweep is None and len(list_webhooks(session)) >= MAX_WEBHOOKS:
        raise TooManyWebhooks(f"there are {MAX_WEBHOOKS} already")
    webhook = Webhook(
        id=new_webhook_id(),
        job_id=job.id if job else None,
        sweep_id=sweep.id if sweep else None,
        url=new.url,
        events=" ".join(sorted(new.events)),
        secret=new.secret,
        failed_deliveries=0,
    )
    session.add(webhook)
    session.flush()
    return webhook


def change_secret(session: Session, webhook_id: str, sealed: str) -> Webhook:
    """Give the webhook a new secret, which signs from the next try on; raises `NotFound`."""
    webhook = get_webhook(session, webhook_id)
    webhook.secret = sealed
    session.flush()
    return webhook


def new_secret() -> str:
    """Return a secret that messages can be signed with: 256 random bits."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def get_webhook(session: Session, webhook_id: str) -> Webhook:
    """Return the webhook; raises `NotFound`."""
    webhook = session.get(Webhook, webhook_id)
    if webhook is None:
        raise NotFound("webhook", webhook_id)
    return webhook


def list_webhooks(session: Session) -> list[Webhook]:
    """Return the webhooks, oldest first; those of single jobs and sweeps are left out."""
    of_all = (Webhook.job_id.is_(None), Webhook.sweep_id.is_(None))
    return list(session.scalars(select(Webhook).where(*of_all).order_by(Webhook.id)))


def webhook_of(session: Session, job_id: str) -> Webhook | None:
    """Return the job's own webhook."""
    return session.scalars(select(Webhook).where(Webhook.job_id == job_id)).one_or_none()


def webhook_of_sweep(session: Session, sweep_id: str) -> Webhook | None:
    """Return the sweep's own webhook."""
    # The index leads to those of no job, which are few.
    own = (Webhook.job_id.is_(None), Webhook.sweep_id == sweep_id)
    return session.scalars(select(Webhook).where(*own)).one_or_none()


def enable(session: Session, webhook: Webhook) -> None:
    """Switch the webhook on again; it is told what has waited meanwhile, too."""
    webhook.disabled_at = webhook.disabled_reason = None
    webhook.failed_deliveries = 0


def delete_webhook(session: Session, webhook_id: str) -> None:
    """Delete the webhook with its deliveries; raises `NotFound`."""
    webhook = get_webhook(session, webhook_id)
    _forget(session, WebhookDelivery.webhook_id == webhook.id)
    session.delete(webhook)


def forget_job(session: Session, job_id: str) -> None:
    """Delete the job's own webhook, and what any was told of the job."""
    _forget_own(session, webhook_of(session, job_id))
    _forget(session, WebhookDelivery.job_id == job_id)


def forget_sweep(session: Session, sweep_id: str) -> None:
    """Delete the sweep's own webhook, and what any was told of the sweep."""
    _forget_own(session, webhook_of_sweep(session, sweep_id))
    told = and_(WebhookDelivery.job_id.is_(None), WebhookDelivery.sweep_id == sweep_id)
    _forget(session, told)


def _forget_own(session: Session, own: Webhook | None) -> None:
    if own is not None:
        delete_webhook(session, own.id)
        session.flush()


def forget_old(session: Session, tenant: str, keep_s: float, limit: int) -> int:
    """Delete up to `limit` of what the tenant's webhooks were told longer ago; returns how many."""
    done = WebhookDelivery.due_at.is_(None)
    old = WebhookDelivery.created_at < clock(-keep_s)
    which = select(WebhookDelivery.id).where(WebhookDelivery.tenant_id == tenant, done, old)
    ids = session.scalars(which.order_by(WebhookDelivery.created_at).limit(limit)).all()
    _forget(session, WebhookDelivery.id.in_(ids))
    return len(ids)


def _forget(session: Session, which: ColumnElement[bool]) -> None:
    ids = select(WebhookDelivery.id).where(which)
    options = {"synchronize_session": False}
    attempts = delete(WebhookAttempt).where(WebhookAttempt.delivery_id.in_(ids))
    session.execute(attempts, execution_options=options)
    session.execute(delete(WebhookDelivery).where(which), execution_options=options)


def tell_state(session: Session, job: Job) -> None:
    """Add deliveries of the job's present state to every webhook that listens to it."""
    # The job's row is to be written at once, when all of its change has been made.
    with session.no_autoflush:
        data = {
            "job_id": job.id,
            "name": job.name,
            "state": job.state.value,
            "attempt": job.attempt,
            "seq": job.last_event_seq,
            "error": {"code": job.error_code, "message": job.error_message}
            if job.error_code
            else None,
        }
        _tell(session, job.tenant_id, f"job.{job.state.value}", data, job)


def tell_sweep(session: Session, sweep: Sweep) -> None:
    """Add deliveries of the end of the sweep to every webhook that listens to it."""
    with session.no_autoflush:
        data = {
            "sweep_id": sweep.id,
            "name": sweep.name,
            "state": sweep.state.value,
            "message": sweep.message,
        }
        _tell(session, sweep.tenant_id, f"sweep.{sweep.state.value}", data, sweep)


def tell_disabled(session: Session, webhook: Webhook) -> None:
    """Add deliveries to the tenant's other webhooks: this one was switched off."""
    data = {
        "webhook_id": webhook.id,
        "job_id": webhook.job_id,
        "sweep_id": webhook.sweep_id,
        "reason": webhook.disabled_reason,
    }
    _tell(session, webhook.tenant_id, DISABLED, data)


def tell_expiring(session: Session, key: Key) -> None:
    """Add deliveries to the tenant's webhooks that listen to it: the key expires soon."""
    assert key.expires_at is not None, "a key that never does is nobody's to remind of"
    expires_at = key.expires_at.isoformat(timespec="seconds")
    data = {"key_id": key.id, "scopes": key.scopes.split(), "expires_at": expires_at}
    _tell(session, key.tenant_id, KEY_EXPIRING, data)


# The query is built once, because every change of a job's state asks it.
_LISTENING = (
    select(Webhook)
    .where(
        Webhook.tenant_id == bindparam("tenant"),
        Webhook.disabled_at.is_(None),
        or_(
            and_(Webhook.job_id.is_(None), Webhook.sweep_id.is_(None)),
            Webhook.job_id == bindparam("job"),
            and_(Webhook.job_id.is_(None), Webhook.sweep_id == bindparam("sweep")),
        ),
    )
    .order_by(Webhook.id)
)


def _tell(
    session: Session, tenant: str, type: str, data: Document, of: Job | Sweep | None = None
) -> None:
    job_id = of.id if isinstance(of, Job) else None
    sweep_id = of.id if isinstance(of, Sweep) else None
    whom = {"tenant": tenant, "job": job_id, "sweep": sweep_id}
    for webhook in session.scalars(_LISTENING, whom):
        if type in webhook.events.split():
            session.add(
                WebhookDelivery(
                    tenant_id=tenant,
                    id=new_delivery_id(),
                    webhook_id=webhook.id,
                    job_id=job_id,
                    sweep_id=sweep_id,
                    seq=of.last_event_seq if of else 0,
                    type=type,
                    data=data,
                    attempts=0,
                    failures=0,
                )
            )


def list_deliveries(
    session: Session, webhook_id: str, *, limit: int = 50, cursor: str | None = None
) -> DeliveryPage:
    """Return a page of what the webhook was or is to be told, newest first.

    Raises `NotFound`, `InvalidCursor`.
    """
    get_webhook(session, webhook_id)
    query = select(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook_id)
    query = query.order_by(WebhookDelivery.id.desc()).limit(limit + 1)
    if cursor is not None:
        query = query.where(WebhookDelivery.id < decode_id(cursor, "msg_"))
    found = session.scalars(query).all()
    page = found[:limit]
    return DeliveryPage(page, encode_cursor(page[-1].id) if len(found) > limit else None)


def get_delivery(session: Session, webhook_id: str, delivery_id: str) -> WebhookDelivery:
    """Return a delivery of the webhook; raises `NotFound`."""
    get_webhook(session, webhook_id)
    delivery = session.get(WebhookDelivery, delivery_id)
    if delivery is None or delivery.webhook_id != webhook_id:
        raise NotFound("delivery", delivery_id)
    return delivery


def list_attempts(session: Session, delivery_id: str) -> list[WebhookAttempt]:
    """Return how the delivery was tried, first to last."""
    query = select(WebhookAttempt).where(WebhookAttempt.delivery_id == delivery_id)
    return list(session.scalars(query.order_by(WebhookAttempt.number)))


def redeliver(session: Session, webhook_id: str, delivery_id: str) -> WebhookDelivery:
    """Send the delivery again, under the same id and with all its tries.

    Raises `NotFound`, `WebhookDisabled`.
    """
    delivery = get_delivery(session, webhook_id, delivery_id)
    if get_webhook(session, webhook_id).disabled_at is not None:
        raise WebhookDisabled(webhook_id)
    session.refresh(delivery, with_for_update=True)
    delivery.due_at = session.scalars(select(clock())).one()
    delivery.delivered_at = delivery.given_up_at = None
    delivery.failures = 0
    session.flush()
    return delivery


def count_waiting(session: Session) -> int:
    """Return how many deliveries are still to be made."""
    query = select(func.count()).select_from(WebhookDelivery)
    return session.scalars(query.where(WebhookDelivery.due_at.is_not(None))).one()
