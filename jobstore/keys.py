"""Keys: who may call, for whom, and what. A key is shown once, when it is made; its hash is kept.

A key is 256 random bits, so one round of SHA-256 keeps it as safe as a slow hash keeps a password.
"""

import hashlib
import secrets
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, bindparam, func, or_, select, update
from sqlalchemy.orm import Session

from jobstore.dialects import clock
from jobstore.errors import NotFound
from jobstore.ids import new_key_id
from jobstore.tables import DEFAULT_TENANT, Key, Tenant
from jobstore.tenants import get_or_create_tenant

PREFIX = "atmc_"
"""The beginning of every key, by which scanners of logs and repositories find a leaked one."""

# This is often enough to tell a forgotten key from one in use, and spares a write a request.
_USE_RECORDED_EVERY_S = 60.0


_keys, _tenants = Key.__table__, Tenant.__table__
_NOT_RECORDED = or_(
    _keys.c.last_used_at.is_(None), _keys.c.last_used_at < clock(-_USE_RECORDED_EVERY_S)
)
# Every request asks one of these queries. They are built once and select from tables, not mapped
# classes, because building and mapping take four times as long as the query itself.
_DEFAULT_TENANT = select(_tenants).where(_tenants.c.id == DEFAULT_TENANT)
_HOLDER = (
    select(_keys.c.scopes, func.coalesce(_NOT_RECORDED, False), _tenants)
    .join_from(_keys, _tenants)
    .where(
        _keys.c.hash == bindparam("hash"),
        _keys.c.revoked_at.is_(None),
        or_(_keys.c.expires_at.is_(None), _keys.c.expires_at > clock()),
    )
)


class Scope(StrEnum):
    """The rights that a key gives its holder."""

    READ = "jobs:read"
    WRITE = "jobs:write"
    ADMIN = "admin"


_EVERYTHING = frozenset(Scope)


@dataclass(frozen=True)
class Holder:
    """Who has shown a key that holds: its tenant, and what it lets them do."""

    tenant: Tenant
    scopes: frozenset[Scope]


def hash_key(secret: str) -> str:
    """Return what is kept of a key: its SHA-256 (hex)."""
    return hashlib.sha256(secret.encode()).hexdigest()


def create_key(
    session: Session, *, tenant: str, scopes: Collection[Scope], expires_at: datetime | None
) -> tuple[Key, str]:
    """Make a key of the tenant, and the tenant if it is new; returns the row and the key itself."""
    secret = PREFIX + secrets.token_urlsafe(32)
    key = Key(
        id=new_key_id(),
        tenant_id=get_or_create_tenant(session, tenant).id,
        hash=hash_key(secret),
        scopes=" ".join(sorted(scopes)),
        expires_at=expires_at,
    )
    session.add(key)
    session.flush()
    return key, secret


def list_keys(session: Session) -> list[Key]:
    """Return the keys of all tenants, newest first, those that hold no more included."""
    return list(session.scalars(select(Key).order_by(Key.id.desc())))


def revoke_key(session: Session, key_id: str) -> Key:
    """Revoke the key from this moment on; raises `NotFound`."""
    key = session.get(Key, key_id, with_for_update=True)
    if key is None:
        raise NotFound("key", key_id)
    if key.revoked_at is None:
        key.revoked_at = session.scalars(select(clock())).one()
    session.flush()
    return key


def find_holder(connection: Connection, secret: str) -> tuple[Holder, bool] | None:
    """Return who holds the key, and whether its use is to be recorded; None if it does not hold."""
    found = connection.execute(_HOLDER, {"hash": hash_key(secret)}).one_or_none()
    if found is None:
        return None
    scopes, use_is_due, *tenant = found
    return Holder(_tenant(tenant), frozenset(map(Scope, scopes.split()))), bool(use_is_due)


def operator(connection: Connection) -> Holder:
    """Return who needs no key of a tenant's: the default tenant, with every scope."""
    return Holder(_tenant(connection.execute(_DEFAULT_TENANT).one()), _EVERYTHING)


def _tenant(values: Iterable[object]) -> Tenant:
    return Tenant(**dict(zip(_tenants.c.keys(), values, strict=True)))


def record_use(session: Session, secret: str) -> None:
    """Remember that the key was used now."""
    session.execute(update(Key).where(Key.hash == hash_key(secret)).values(last_used_at=clock()))
