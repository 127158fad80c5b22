"""Who calls, for whom, and whether they may."""

import hmac
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from fastapi.security import HTTPBearer

from api.oidc.provider import Provider
from api.oidc.tokens import Token, is_token
from api.problems import Problem
from api.text import shown
from jobstore import audit
from jobstore.database import Database
from jobstore.keys import (
    PREFIX,
    Holder,
    Scope,
    find_holder,
    find_tenant,
    hash_key,
    operator,
    record_use,
)
from jobstore.settings import Settings, is_loopback
from jobstore.tenancy import Origin
from jobstore.tenants import get_or_create_tenant

UNKNOWN = "unknown"
"""The actor of a request whose sender has shown nothing that holds."""

_CHALLENGE = {"WWW-Authenticate": "Bearer"}

bearer = HTTPBearer(
    scheme_name="key",
    bearerFormat=f"{PREFIX}...",
    description="A key as `atmc keys create` prints it, or a token of the service's OIDC provider. "
    "Its scopes: `jobs:read` for GET, `jobs:write` for the rest, `admin` for keys. Without "
    "ATMC_ADMIN_KEY and ATMC_OIDC_ISSUER none is needed.",
    auto_error=False,
)


@dataclass(frozen=True)
class Shown:
    """What a request shows of its sender: a key, or a token and what it says."""

    secret: str | None
    token: Token | None = None


async def read_shown(settings: Settings, provider: Provider | None, secret: str | None) -> Shown:
    """Return what is shown; a token is verified now, which may wait for its provider.

    Raises `token_invalid`, `token_expired`, `token_without_tenant`, `provider_away`.
    """
    if provider is None or secret is None or not _may_be_token(settings, secret):
        return Shown(secret)
    return Shown(secret, await provider.verify(secret))


def identify(settings: Settings, database: Database, shown: Shown, origin: Origin) -> Holder:
    """Return who shows it; raises `key_required` and `key_invalid`.

    A key is looked up for every request, so that a revoked one is refused at once. Where the
    settings have neither an admin key nor a provider nobody has to show anything (they then listen
    to this machine only), and all is the default tenant's.
    """
    if shown.token is not None:
        return _bearer(database, shown.token, origin)
    secret = shown.secret
    if secret is None:
        if settings.asks_who_calls:
            detail = "Send a key: 'Authorization: Bearer atmc_...' (ATMC_API_KEY for atmc)."
            raise Problem("key_required", detail, headers=_CHALLENGE)
        return _operator(database)
    if _is_admins(settings, secret):
        return _operator(database)
    with database.look_up() as connection:
        found = find_holder(connection, secret)
    if found is None:
        detail = "The key is unknown, revoked or expired; ask for a new one."
        raise Problem("key_invalid", detail, headers=_CHALLENGE)
    holder, use_is_due = found
    if use_is_due:
        with database.write() as session:
            record_use(session, secret)
    return holder


def still_holds(
    settings: Settings, database: Database, provider: Provider | None, secret: str | None
) -> bool:
    """Tell whether a key or token still holds, for answers that go on long after it was let in."""
    try:
        if provider is not None and secret is not None and _may_be_token(settings, secret):
            provider.verify_known(secret)
        else:
            identify(settings, database, Shown(secret), Origin(UNKNOWN))
    except Problem:
        return False
    return True


def check_nearby(host: str | None, origin: str | None) -> None:
    """Raise `foreign_origin` unless a request without a key is of this machine, by its headers.

    It comes from here, but a browser here may have sent it for a page from elsewhere: then its
    `Origin` is the page's, or its `Host` a name that was made to lead here.
    """
    page = urlsplit(origin).hostname if origin is not None else host
    if not (is_loopback(host) and is_loopback(page)):
        detail = (
            f"Without ATMC_ADMIN_KEY the service answers to localhost and 127.0.0.1 only, not to "
            f"{shown(host)} for {shown(origin)}."
        )
        raise Problem("foreign_origin", detail)


def check_address(holder: Holder, address: str | None) -> None:
    """Raise `address_not_allowed` for a key that is not to be shown from there."""
    if not holder.may_come_from(address):
        detail = (
            f"The key is limited to other addresses than {shown(address)}, where this comes from. "
            "Send it from one of those, or ask for another key."
        )
        raise Problem("address_not_allowed", detail)


def require(holder: Holder, *scopes: Scope) -> None:
    """Raise `scope_missing` unless the holder's key or token has one of the scopes."""
    if holder.scopes.isdisjoint(scopes):
        named = " or ".join(repr(scope.value) for scope in scopes)
        raise Problem("scope_missing", f"This takes a key or token with {named}; ask for one.")


def _may_be_token(settings: Settings, secret: str) -> bool:
    return is_token(secret) and not _is_admins(settings, secret)


def _is_admins(settings: Settings, secret: str) -> bool:
    return settings.admin_key is not None and _equal(settings.admin_key.get_secret_value(), secret)


def _operator(database: Database) -> Holder:
    with database.look_up() as connection:
        return operator(connection)


def _bearer(database: Database, token: Token, origin: Origin) -> Holder:
    actor = f"oidc:{token.subject}"
    with database.look_up() as connection:
        tenant = find_tenant(connection, token.tenant)
    if tenant is None:
        # The provider says which tenants there are, as an operator does who makes a key.
        with database.of(None, replace(origin, actor=actor)).write() as session:
            tenant = get_or_create_tenant(session, token.tenant)
            audit.record(session, "tenant.create", tenant.id, tenant=tenant.id)
    return Holder(tenant, token.scopes, actor)


def _equal(secret: str, shown: str) -> bool:
    # Digests, because compare_digest takes as long as its arguments, and no text outside ASCII.
    return hmac.compare_digest(hash_key(secret), hash_key(shown))
