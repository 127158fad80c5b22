"""Who calls, for whom, and whether they may."""

import hmac
from urllib.parse import urlsplit

from fastapi.security import HTTPBearer

from api.problems import Problem
from api.text import shown
from jobstore.database import Database
from jobstore.keys import PREFIX, Holder, Scope, find_holder, hash_key, operator, record_use
from jobstore.settings import Settings, is_loopback

_CHALLENGE = {"WWW-Authenticate": "Bearer"}

bearer = HTTPBearer(
    scheme_name="key",
    bearerFormat=f"{PREFIX}...",
    description="A key as `atmc keys create` prints it. Its scopes: `jobs:read` for GET, "
    "`jobs:write` for the rest, `admin` for keys. Without ATMC_ADMIN_KEY none is needed.",
    auto_error=False,
)


def identify(settings: Settings, database: Database, secret: str | None) -> Holder:
    """Return who shows the key; raises `key_required` and `key_invalid`.

    It is looked up for every request, so that a revoked one is refused at once. Where the settings
    have no admin key nobody has to show one (they then listen to this machine only), and
    all is the default tenant's.
    """
    if secret is None:
        if settings.admin_key is not None:
            detail = "Send a key: 'Authorization: Bearer atmc_...' (ATMC_API_KEY for atmc)."
            raise Problem("key_required", detail, headers=_CHALLENGE)
        return _operator(database)
    if settings.admin_key is not None and _equal(settings.admin_key.get_secret_value(), secret):
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


def still_holds(settings: Settings, database: Database, secret: str | None) -> bool:
    """Tell whether a key still holds, for answers that go on long after it was let in."""
    try:
        identify(settings, database, secret)
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


def require(holder: Holder, scope: Scope) -> None:
    """Raise `scope_missing` unless the holder's key has the scope."""
    if scope not in holder.scopes:
        detail = f"This takes a key with the scope {scope.value!r}; ask for one."
        raise Problem("scope_missing", detail)


def _operator(database: Database) -> Holder:
    with database.look_up() as connection:
        return operator(connection)


def _equal(secret: str, shown: str) -> bool:
    # Digests, because compare_digest takes as long as its arguments, and no text outside ASCII.
    return hmac.compare_digest(hash_key(secret), hash_key(shown))
