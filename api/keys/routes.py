"""`POST` and `GET /keys`, `PATCH` and `DELETE /keys/{id}`: an admin's, of one tenant or of all."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api.idempotency import IdempotencyKey, answer_once
from api.openapi import json_body
from api.problems import Problem, documented
from api.router import Router
from api.services import Services, TenantAdminDep
from api.strict_json import read_body
from api.text import Moment, PathText
from api.views import RowView
from jobstore import audit
from jobstore.idempotency import Answer
from jobstore.keys import (
    Scope,
    create_key,
    hold_key,
    limit_key,
    list_keys,
    read_network,
    revoke_key,
)
from jobstore.tables import DEFAULT_TENANT, Key
from jobstore.tenants import TENANT_NAME

router = Router(tags=["keys"])


Network = Annotated[str, Field(max_length=64), AfterValidator(read_network)]
Networks = Annotated[list[Network], Field(min_length=1, max_length=64)]


class NewKey(BaseModel):
    """A key to make: its tenant, its scopes, and how long it holds."""

    model_config = ConfigDict(extra="forbid")

    tenant: Annotated[str, Field(pattern=f"^{TENANT_NAME.pattern}$")] | None = Field(
        None,
        description="The team whose models, data sets and jobs it opens; a new name makes a new "
        f"one. By default `{DEFAULT_TENANT}`, of a `tenant:admin` their own.",
        examples=["vision"],
    )
    scopes: Annotated[frozenset[Scope], Field(min_length=1)] = Field(
        examples=[["jobs:read", "jobs:write"]]
    )
    expires_at: Moment | None = Field(None, examples=["2030-01-01T00:00:00Z"])
    addresses: Networks | None = Field(
        None,
        description="The addresses and networks (CIDR) that it may be shown from; null is any.",
        examples=[["192.0.2.0/24", "2001:db8::/32"]],
    )


class ChangedKey(BaseModel):
    """What a key is to be from now on."""

    model_config = ConfigDict(extra="forbid")

    addresses: Networks | None = Field(
        description="As of a new key; the whole list, null for any.", examples=[["192.0.2.0/24"]]
    )


class KeyView(RowView):
    """A key as it is kept: everything but the key itself."""

    id: str = Field(examples=["key_0197f3a2c5d87c3e9b1a4f60d2e8b7c1"])
    tenant: str = Field(validation_alias="tenant_id")
    scopes: Annotated[list[Scope], BeforeValidator(str.split)]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="When it was last used, to the minute.")
    addresses: Annotated[list[str] | None, BeforeValidator(lambda text: text and text.split())] = (
        Field(description="The networks that it may be shown from; null is any.")
    )


class CreatedKey(KeyView):
    """A new key, and the only time that it is shown."""

    key: str = Field(examples=["atmc_..."])


class KeyList(BaseModel):
    """Keys, newest first: of all tenants for an `admin`, of their own for a `tenant:admin`."""

    data: list[KeyView]
    has_more: bool = False
    next: None = None


@router.post(
    "/keys",
    status_code=201,
    summary="Make a key",
    response_model=CreatedKey,
    openapi_extra=json_body(NewKey),
    responses=documented(
        "malformed_json",
        "file_too_large",
        "missing_field",
        "unknown_field",
        "invalid_value",
        "nobody_is_asked",
        "tenant_forbidden",
        "being_erased",
        "key_shown_once",
        "idempotency_conflict",
        "request_in_progress",
    ),
)
async def create(
    request: Request, services: TenantAdminDep, idempotency_key: IdempotencyKey = None
) -> JSONResponse:
    """Return the key, this once; only a hash of it is kept.

    An `admin` makes keys of any tenant; a `tenant:admin` of their own, and none with `admin`.

    So the answer cannot be repeated: the same request under the same `Idempotency-Key` makes no
    second key, but is refused with `key_shown_once`, which names the first to revoke it. Without
    ATMC_ADMIN_KEY, when whoever asks is let in, none is made: it would open the service for good.
    """
    if not services.settings.asks_who_calls:
        detail = "Set ATMC_ADMIN_KEY (openssl rand -hex 24) and restart; then it makes keys."
        raise Problem("nobody_is_asked", detail)
    new = await read_body(request, NewKey)
    if new.expires_at is not None and new.expires_at <= datetime.now(UTC):
        raise Problem("invalid_value", "'expires_at' is over already.", "expires_at")
    tenant = _tenant_for(services, new)
    return await run_in_threadpool(_create, services, new, tenant, idempotency_key)


def _tenant_for(services: Services, new: NewKey) -> str:
    own = services.database.tenant
    if own is None:
        return new.tenant or DEFAULT_TENANT
    if new.tenant not in (None, own):
        detail = f"Your key makes keys of the tenant {own!r} only; ask an operator for others."
        raise Problem("tenant_forbidden", detail, "tenant")
    if Scope.ADMIN in new.scopes:
        detail = "A 'tenant:admin' makes no keys with 'admin'; ask an operator for one."
        raise Problem("scope_missing", detail, "scopes")
    return own


def _create(
    services: Services, new: NewKey, tenant: str, idempotency_key: str | None
) -> JSONResponse:
    def act(session: Session) -> Answer:
        key, secret = create_key(
            session,
            tenant=tenant,
            scopes=new.scopes,
            expires_at=new.expires_at,
            addresses=new.addresses or (),
        )
        audit.record(session, "key.create", key.id, tenant=tenant, scopes=sorted(new.scopes))
        view = KeyView.model_validate(key).model_dump(mode="json")
        return Answer(201, {}, view, once={"key": secret})

    content = new.model_dump(mode="json") | {"scopes": sorted(new.scopes)}
    return answer_once(services.database, "POST /keys", idempotency_key, content, act, _shown)


def _shown(view: dict[str, Any]) -> Problem:
    detail = (
        f"This request was answered before, with the key {view['id']}, which is shown only "
        f"once. If that was lost, revoke it (DELETE /keys/{view['id']}) and make another one."
    )
    return Problem("key_shown_once", detail, "Idempotency-Key")


@router.get("/keys", summary="List the keys")
def list_(services: TenantAdminDep) -> KeyList:
    """Return the keys of all tenants or of one's own, without the keys themselves."""
    with services.database.read() as session:
        return KeyList(data=[KeyView.model_validate(key) for key in list_keys(session)])


@router.patch(
    "/keys/{key_id}",
    summary="Change where a key holds",
    response_model=KeyView,
    openapi_extra=json_body(ChangedKey),
    responses=documented(
        "malformed_json",
        "file_too_large",
        "not_found",
        "missing_field",
        "unknown_field",
        "invalid_value",
        "tenant_forbidden",
    ),
)
async def change(key_id: PathText, request: Request, services: TenantAdminDep) -> KeyView:
    """Have the key hold at other addresses from the next request on. The rest of it is for good."""
    changed = await read_body(request, ChangedKey)
    return await run_in_threadpool(_change, services, key_id, changed)


def _change(services: Services, key_id: str, changed: ChangedKey) -> KeyView:
    with services.database.write() as session:
        key = _hold(services, session, key_id)
        before = key.addresses.split() if key.addresses else None
        limit_key(session, key, changed.addresses or ())
        audit.record(
            session,
            "key.change",
            key_id,
            tenant=key.tenant_id,
            before=before,
            addresses=changed.addresses,
        )
        return KeyView.model_validate(key)


@router.delete(
    "/keys/{key_id}",
    status_code=204,
    response_class=Response,
    summary="Revoke a key",
    responses=documented("not_found", "invalid_value", "tenant_forbidden"),
)
def revoke(key_id: PathText, services: TenantAdminDep) -> None:
    """Refuse every request with the key from now on; the key stays in the list."""
    with services.database.write() as session:
        key = _hold(services, session, key_id)
        revoke_key(session, key)
        audit.record(session, "key.revoke", key_id, tenant=key.tenant_id)


def _hold(services: Services, session: Session, key_id: str) -> Key:
    """Return the key that whoever asks may change."""
    key = hold_key(session, key_id)
    if services.database.tenant is not None and Scope.ADMIN in key.scopes.split():
        detail = "The key is an operator's; only an 'admin' changes or revokes it."
        raise Problem("tenant_forbidden", detail)
    return key
