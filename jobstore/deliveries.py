"""Sending what webhooks are to be told: what is due, and what came of it.

In order per job and webhook: the next is due only once the one before was delivered or given up.
One at a time per webhook, and at most `AT_ONCE_OF_A_TENANT` of a tenant's, whose turn comes before
its webhooks': so neither a slow receiver nor a tenant with many of them delays others. Any number
of senders may run: a claim raises `attempts`, which is what a result is held against, and holds for
`HELD_S`.
"""

import random
from dataclasses import dataclass

from sqlalchemy import Select, exists, func, or_, select
from sqlalchemy.orm import Session, aliased

from jobstore import metrics, traces
from jobstore.dialects import clock, now
from jobstore.tables import Document, Job, Webhook, WebhookAttempt, WebhookDelivery
from jobstore.webhooks import tell_disabled

RETRY_AFTER_S: tuple[float, ...] = (5, 60, 300, 1800, 7200, 18_000, 36_000)
"""Seconds between the tries, give or take a fifth; after that it is given up: 17 hours in all."""

MAX_FAILED = 3
"""So many deliveries given up in a row switch a webhook off."""

HELD_S = 60.0
"""A sender that has not told the outcome after this long is taken for dead: another one tries."""

AT_ONCE_OF_A_TENANT = 4
"""So many deliveries of a tenant are made at the same time."""

_GONE = 410


@dataclass(frozen=True)
class Outgoing:
    """A delivery to make now; `number` counts its tries, `sealed` is the webhook's secret.

    `trace` is the job's, if it tells of one that has a trace.
    """

    id: str
    number: int
    tenant: str
    webhook_id: str
    job_id: str | None
    url: str
    sealed: str
    body: Document
    trace: Document | None = None


@dataclass(frozen=True)
class Outcome:
    """The outcome of a try: the HTTP status or, without one, the `error`; and how long it took."""

    status: int | None
    error: str | None
    seconds: float

    @property
    def delivered(self) -> bool:
        """Whether the receiver has taken it."""
        return self.status is not None and 200 <= self.status < 300


def claim(session: Session, limit: int) -> list[Outgoing]:
    """Take up to `limit` deliveries that are due, of as many webhooks.

    The tenants with the fewest at work come first, and what is alike is drawn by lot: so neither
    thousands that are due of one webhook, nor thousands of webhooks of one tenant, keep back
    others.
    """
    placed = _placed().subquery()
    waiting = (
        select(placed.c.webhook_id)
        .where(placed.c.place <= AT_ONCE_OF_A_TENANT)
        .order_by(placed.c.place, func.random())
        .limit(limit)
    )
    firsts = [_first_due(session, webhook_id) for webhook_id in session.scalars(waiting).all()]
    held_until = now(session, HELD_S)
    taken = []
    for delivery in firsts:
        if delivery is not None:
            delivery.attempts += 1
            delivery.held_until = held_until
            webhook = session.get_one(Webhook, delivery.webhook_id)
            taken.append(_outgoing(delivery, webhook, _trace_of(session, delivery)))
    return taken


def _placed() -> Select[tuple[str, int]]:
    """Select the webhooks that may be told something, each with its place among its tenant's.

    What is being delivered to the tenant's other webhooks has the first places.
    """
    this, held = WebhookDelivery, aliased(WebhookDelivery)
    # What is held is due, too, so that both find their rows by the index on what is due.
    at_work = (
        select(held.tenant_id, func.count().label("count"))
        .where(held.due_at <= clock(), held.held_until > clock())
        .group_by(held.tenant_id)
        .subquery()
    )
    is_told = exists().where(
        held.webhook_id == this.webhook_id, held.due_at <= clock(), held.held_until > clock()
    )
    waiting = (
        select(this.webhook_id, this.tenant_id)
        .join(Webhook, Webhook.id == this.webhook_id)
        .where(this.due_at <= clock(), Webhook.disabled_at.is_(None), ~is_told)
        .group_by(this.webhook_id, this.tenant_id)
        .subquery()
    )
    drawn = func.row_number().over(partition_by=waiting.c.tenant_id, order_by=func.random())
    place = (func.coalesce(at_work.c.count, 0) + drawn).label("place")
    same_tenant = at_work.c.tenant_id == waiting.c.tenant_id
    return select(waiting.c.webhook_id, place).outerjoin_from(waiting, at_work, same_tenant)


def _first_due(session: Session, webhook_id: str) -> WebhookDelivery | None:
    """Lock the webhook's first delivery that is due, and before which its job has no other."""
    this, earlier = WebhookDelivery, aliased(WebhookDelivery)
    before = exists().where(
        earlier.webhook_id == this.webhook_id,
        earlier.job_id == this.job_id,
        earlier.seq < this.seq,
        earlier.due_at.is_not(None),
    )
    free = or_(this.held_until.is_(None), this.held_until <= clock())
    query = (
        select(this)
        .where(this.webhook_id == webhook_id, this.due_at <= clock(), free, ~before)
        .order_by(this.due_at, this.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    return session.scalars(query).one_or_none()


def record(session: Session, outgoing: Outgoing, outcome: Outcome) -> None:
    """Write down what came of a try, and when the next one is due.

    A webhook whose deliveries are given up one after the other, or whose receiver says that it is
    gone, is switched off, and the tenant's others are told so.
    """
    delivery = session.get(WebhookDelivery, outgoing.id, with_for_update=True)
    if delivery is None or delivery.attempts != outgoing.number:
        return  # Deleted, or held to be lost and tried by another sender.
    session.add(
        WebhookAttempt(
            tenant_id=delivery.tenant_id,
            delivery_id=delivery.id,
            number=outgoing.number,
            status=outcome.status,
            error=outcome.error,
            seconds=outcome.seconds,
        )
    )
    delivery.held_until = None
    webhook = session.get_one(Webhook, delivery.webhook_id, with_for_update=True)
    if outcome.delivered:
        delivery.delivered_at, delivery.due_at = now(session), None
        webhook.failed_deliveries = 0
        metrics.count(session, metrics.WEBHOOK_DELIVERIES, outcome="delivered")
        return
    delivery.failures += 1
    if outcome.status != _GONE and delivery.failures <= len(RETRY_AFTER_S):
        delay = RETRY_AFTER_S[delivery.failures - 1] * random.uniform(0.8, 1.2)
        delivery.due_at = now(session, delay)
        metrics.count(session, metrics.WEBHOOK_DELIVERIES, outcome="failed")
        return
    delivery.given_up_at, delivery.due_at = now(session), None
    webhook.failed_deliveries += 1
    metrics.count(session, metrics.WEBHOOK_DELIVERIES, outcome="given_up")
    if outcome.status == _GONE or webhook.failed_deliveries >= MAX_FAILED:
        _disable(session, webhook, outcome)


def _disable(session: Session, webhook: Webhook, outcome: Outcome) -> None:
    if webhook.disabled_at is not None:
        return
    said = f"status {outcome.status}" if outcome.status is not None else str(outcome.error)
    webhook.disabled_at = now(session)
    webhook.disabled_reason = (
        "the receiver says that it is gone (410)"
        if outcome.status == _GONE
        else f"{webhook.failed_deliveries} deliveries in a row failed, the last with: {said}"
    )
    metrics.count(session, metrics.WEBHOOK_DELIVERIES, outcome="switched_off")
    tell_disabled(session, webhook)


def _trace_of(session: Session, delivery: WebhookDelivery) -> Document | None:
    if not traces.is_on():
        return None
    return session.scalar(select(Job.trace).where(Job.id == delivery.job_id))


def _outgoing(delivery: WebhookDelivery, webhook: Webhook, trace: Document | None) -> Outgoing:
    body = {
        "type": delivery.type,
        "timestamp": delivery.created_at.isoformat(),
        "data": delivery.data,
    }
    return Outgoing(
        id=delivery.id,
        number=delivery.attempts,
        tenant=delivery.tenant_id,
        webhook_id=webhook.id,
        job_id=delivery.job_id,
        url=webhook.url,
        sealed=webhook.secret,
        body=body,
        trace=trace,
    )
