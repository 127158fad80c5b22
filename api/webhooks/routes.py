"""`/webhooks`: make, list, change, delete; the log of their deliveries, and delivering again."""

from typing import Annotated, Any

from fastapi import Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api.idempotency import IdempotencyKey, answer_once
from api.openapi import LOCATION, json_body
from api.problems import ONCE_CODES, Problem, documented
from api.router import Router
from api.services import Services, WebhooksDep
from api.strict_json import read_body
from api.text import PathText
from api.views import created
from api.webhooks.schemas import (
    DeliveryPage,
    DeliveryView,
    DeliveryWithAttempts,
    NewSweepWebhook,
    NewWebhook,
    WebhookChanges,
    WebhookList,
    WebhookView,
    WebhookWithSecret,
)
from jobstore import audit, webhooks
from jobstore.destinations import Destinations, Forbidden
from jobstore.errors import TooManyWebhooks, WebhookDisabled
from jobstore.idempotency import Answer

router = Router(tags=["webhooks"])


def checked(
    services: Services, new: NewWebhook | NewSweepWebhook, param: str = "url"
) -> tuple[webhooks.NewWebhook, str]:
    """Return the webhook to make, and its secret to show this once.

    Raises `invalid_value` for a URL that may not be called.
    """
    _check_url(services, new.url, param)
    secret = webhooks.new_secret()
    return webhooks.NewWebhook(new.url, new.events, services.vault.seal(secret)), secret


@router.post(
    "/webhooks",
    status_code=201,
    summary="Have the events of all jobs told to a URL",
    response_model=WebhookWithSecret,
    openapi_extra=json_body(NewWebhook),
    responses={
        201: LOCATION,
        **documented(
            "malformed_json",
            "file_too_large",
            "missing_field",
            "unknown_field",
            "invalid_value",
            "too_many_webhooks",
            "secret_shown_once",
            *ONCE_CODES,
        ),
    },
)
async def create(
    request: Request, services: WebhooksDep, idempotency_key: IdempotencyKey = None
) -> JSONResponse:
    """Return the webhook with the secret that signs what it is sent, which is shown only here.

    Each event is a POST of JSON, signed as [Standard Webhooks](https://www.standardwebhooks.com)
    has it: `{"type", "timestamp", "data"}`. It is repeated over hours until the answer is 2xx, in
    order per job; the same `webhook-id` may come twice. Redirects are not followed.

    The answer cannot be repeated: the same request under the same `Idempotency-Key` makes no second
    webhook, but is refused with `secret_shown_once`.
    """
    new = await read_body(request, NewWebhook)
    return await run_in_threadpool(_create, services, new, idempotency_key)


def _create(services: Services, new: NewWebhook, key: str | None) -> JSONResponse:
    wanted, secret = checked(services, new)

    def act(session: Session) -> Answer:
        try:
            made = webhooks.create_webhook(session, wanted)
            audit.record(session, "webhook.create", made.id)
        except TooManyWebhooks as error:
            detail = f"{str(error).capitalize()}; delete one first."
            raise Problem("too_many_webhooks", detail) from error
        return created(WebhookView.model_validate(made), once={"secret": secret})

    content = new.model_dump()
    return answer_once(services.database, "POST /webhooks", key, content, act, _shown)


def _shown(view: dict[str, Any]) -> Problem:
    detail = (
        f"This request was answered before, with the secret of the webhook {view['id']}, which is "
        f"shown only once. If that was lost, POST /webhooks/{view['id']}/rotate-secret, under "
        "another key, gives it a new one."
    )
    return Problem("secret_shown_once", detail, "Idempotency-Key")


@router.get("/webhooks", summary="List the webhooks")
def list_(services: WebhooksDep) -> WebhookList:
    """Return all but those of single jobs, oldest first."""
    with services.database.read() as session:
        return WebhookList(
            data=[WebhookView.model_validate(w) for w in webhooks.list_webhooks(session)]
        )


@router.get(
    "/webhooks/{webhook_id}",
    summary="Get a webhook",
    responses=documented("not_found", "invalid_value"),
)
def get(webhook_id: PathText, services: WebhooksDep) -> WebhookView:
    """Return the webhook, and whether and why it was switched off."""
    with services.database.read() as session:
        return WebhookView.model_validate(webhooks.get_webhook(session, webhook_id))


@router.patch(
    "/webhooks/{webhook_id}",
    summary="Change a webhook, or switch it on again",
    openapi_extra=json_body(WebhookChanges),
    responses=documented(
        "not_found", "malformed_json", "file_too_large", "unknown_field", "invalid_value"
    ),
)
async def change(webhook_id: PathText, request: Request, services: WebhooksDep) -> WebhookView:
    """Change the fields that are sent. A webhook that is switched on again is told what waited."""
    changes = await read_body(request, WebhookChanges)
    return await run_in_threadpool(_change, services, webhook_id, changes)


def _change(services: Services, webhook_id: str, changes: WebhookChanges) -> WebhookView:
    if changes.url is not None:
        _check_url(services, changes.url, "url")
    with services.database.write() as session:
        webhook = webhooks.get_webhook(session, webhook_id)
        if changes.url is not None:
            webhook.url = changes.url
        if changes.events is not None:
            webhook.events = " ".join(sorted(changes.events))
        if changes.active:
            webhooks.enable(session, webhook)
        session.flush()
        audit.record(session, "webhook.change", webhook_id, fields=sorted(changes.model_fields_set))
        return WebhookView.model_validate(webhook)


@router.post(
    "/webhooks/{webhook_id}/rotate-secret",
    summary="Give a webhook a new secret",
    response_model=WebhookWithSecret,
    responses=documented("not_found", "invalid_value", "secret_shown_once", *ONCE_CODES),
)
def rotate_secret(
    webhook_id: PathText, services: WebhooksDep, idempotency_key: IdempotencyKey = None
) -> JSONResponse:
    """Return the webhook with the secret that signs from the next try on, tries of what waits too.

    The old one signs nothing more: have the receiver accept both while you change it. The same
    request under the same `Idempotency-Key` is refused with `secret_shown_once`.
    """

    def act(session: Session) -> Answer:
        secret = webhooks.new_secret()
        changed = webhooks.change_secret(session, webhook_id, services.vault.seal(secret))
        audit.record(session, "webhook.rotate_secret", webhook_id)
        view = WebhookView.model_validate(changed).model_dump(mode="json")
        return Answer(200, {}, view, once={"secret": secret})

    scope = f"POST /webhooks/{webhook_id}/rotate-secret"
    return answer_once(services.database, scope[-255:], idempotency_key, {}, act, _shown)


@router.delete(
    "/webhooks/{webhook_id}",
    status_code=204,
    summary="Delete a webhook",
    responses={
        204: {"description": "It is told nothing more."},
        **documented("not_found", "invalid_value"),
    },
)
def delete(webhook_id: PathText, services: WebhooksDep) -> Response:
    """Delete it with the log of its deliveries; what waits is not sent any more."""
    with services.database.write() as session:
        webhooks.delete_webhook(session, webhook_id)
        audit.record(session, "webhook.delete", webhook_id)
    return Response(status_code=204)


class _Page(BaseModel):
    model_config = ConfigDict(extra="forbid")

    limit: int = Field(20, ge=1, le=100)
    cursor: str | None = Field(None, description="The `next` of the page before.")


@router.get(
    "/webhooks/{webhook_id}/deliveries",
    summary="List what a webhook was told",
    responses=documented("not_found", "unknown_field", "invalid_value"),
)
def deliveries(
    webhook_id: PathText, query: Annotated[_Page, Query()], services: WebhooksDep
) -> DeliveryPage:
    """Return a page of deliveries, newest first, those that wait included."""
    with services.database.read() as session:
        page = webhooks.list_deliveries(session, webhook_id, limit=query.limit, cursor=query.cursor)
    data = [DeliveryView.model_validate(delivery) for delivery in page.deliveries]
    return DeliveryPage(data=data, has_more=page.next is not None, next=page.next)


@router.get(
    "/webhooks/{webhook_id}/deliveries/{delivery_id}",
    summary="Get a delivery with its tries",
    responses=documented("not_found", "invalid_value"),
)
def delivery(
    webhook_id: PathText, delivery_id: PathText, services: WebhooksDep
) -> DeliveryWithAttempts:
    """Return what was answered to each try, or why there was no answer."""
    with services.database.read() as session:
        found = webhooks.get_delivery(session, webhook_id, delivery_id)
        attempts = webhooks.list_attempts(session, delivery_id)
    return DeliveryWithAttempts.with_log(found, attempts)


@router.post(
    "/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver",
    status_code=202,
    summary="Tell a webhook again",
    response_model=DeliveryView,
    responses=documented(
        "not_found",
        "invalid_value",
        "webhook_disabled",
        *ONCE_CODES,
    ),
)
def redeliver(
    webhook_id: PathText,
    delivery_id: PathText,
    services: WebhooksDep,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """Send the delivery again at once, under the same id and with all its tries."""

    def act(session: Session) -> Answer:
        try:
            found = webhooks.redeliver(session, webhook_id, delivery_id)
        except WebhookDisabled as error:
            detail = "The webhook is switched off; PATCH it with 'active': true first."
            raise Problem("webhook_disabled", detail) from error
        audit.record(session, "webhook.redeliver", webhook_id, delivery=delivery_id)
        return Answer(202, {}, DeliveryView.model_validate(found).model_dump(mode="json"))

    scope = f"POST /webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver"
    # The end of the path will do: ids in it may be of any length, a scope may not.
    return answer_once(services.database, scope[-255:], idempotency_key, {}, act)


def _check_url(services: Services, url: str, param: str) -> None:
    try:
        Destinations.from_settings(services.settings).check_url(url)
    except Forbidden as error:
        detail = f"The service does not call this URL: {error}."
        raise Problem("invalid_value", detail, param) from error
