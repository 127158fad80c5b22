"""Keys: who may call, for whom, and what. A key is shown once, when it is made; its hash is kept.

A key is 256 random bits, so one round of SHA-256 keeps it as safe as a slow hash keeps a password.
"""

import hashlib
import secrets
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from ipaddress import ip_address, ip_network

from sqlalchemy import Connection, bindparam, func, or_, select, update
from sqlalchemy.orm import Session

from jobstore.dialects import clock
from jobstore.errors import NotFound
from jobstore.ids import new_key_id
from jobstore.tables import DEFAULT_TENANT, Key, Tenant
from jobstore.tenants import get_or_create_tenant
from jobstore.webhooks import tell_expiring

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
_TENANT = select(_tenants).where(_tenants.c.id == bindparam("tenant"))
_HOLDER = (
    select(
        *(_keys.c[name] for name in ("id", "scopes", "addresses", "expires_at")),
        func.coalesce(_NOT_RECORDED, False),
        _tenants,
    )
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
    AUDIT = "audit:read"
    TENANT_ADMIN = "tenant:admin"
    ADMIN = "admin"


_EVERYTHING = frozenset(Scope)


OPERATOR = "operator"
"""Who shows the key of the settings, or is let in without one."""


@dataclass(frozen=True)
class Holder:
    """Who has shown a key or a token that holds: its tenant, and what it lets them do.

    `actor` is who that is: a key's id, `oidc:` and a subject, or `OPERATOR`. A key may be limited
    to `addresses` (networks divided by spaces), and may expire.
    """

    tenant: Tenant
    scopes: frozenset[Scope]
    actor: str
    addresses: str | None = None
    expires_at: datetime | None = None

    def may_come_from(self, address: str | None) -> bool:
        """Tell whether a request of the holder may come from the address."""
        if self.addresses is None:
            return True
        return address is not None and _is_in(address, self.addresses)


@lru_cache(maxsize=4096)
def _is_in(address: str, networks: str) -> bool:
    one = ip_address(address)
    return any(one in ip_network(network) for network in networks.split())


def read_network(text: str) -> str:
    """Return a network or an address as it is kept; raises ValueError with what is wrong."""
    network = ip_network(text.strip())
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is not None:
        raise ValueError(f"{text} is an IPv4 address in IPv6's form; write it as IPv4")
    return str(network if network.num_addresses > 1 else network.network_address)


def hash_key(secret: str) -> str:
    """Return what is kept of a key: its SHA-256 (hex)."""
    return hashlib.sha256(secret.encode()).hexdigest()


def create_key(
    session: Session,
    *,
    tenant: str,
    scopes: Collection[Scope],
    expires_at: datetime | None,
    addresses: Collection[str] = (),
) -> tuple[Key, str]:
    """Make a key of the tenant, and the tenant if it is new; returns the row and the key itself.

    `addresses` are networks (`read_network`); none is anywhere.
    """
    secret = PREFIX + secrets.token_urlsafe(32)
    key = Key(
        id=new_key_id(),
        tenant_id=get_or_create_tenant(session, tenant).id,
        hash=hash_key(secret),
        scopes=" ".join(sorted(scopes)),
        expires_at=expires_at,
        addresses=" ".join(addresses) or None,
    )
    session.add(key)
    session.flush()
    return key, secret


def list_keys(session: Session) -> list[Key]:
    """Return the keys that the session sees, newest first, those that hold no more included."""
    return list(session.scalars(select(Key).order_by(Key.id.desc())))


def hold_key(session: Session, key_id: str) -> Key:
    """Return the key, which nobody else changes until the transaction ends; raises `NotFound`."""
    key = session.get(Key, key_id, with_for_update=True)
    if key is None:
        raise NotFound("key", key_id)
    return key


def limit_key(session: Session, key: Key, addresses: Collection[str]) -> None:
    """Have the key hold at these networks (`read_network`) from now on; none is anywhere."""
    key.addresses = " ".join(addresses) or None
    session.flush()


def revoke_key(session: Session, key: Key) -> None:
    """Revoke the key from this moment on."""
    if key.revoked_at is None:
        key.revoked_at = session.scalars(select(clock())).one()
    session.flush()


def find_holder(connection: Connection, secret: str) -> tuple[Holder, bool] | None:
    """Return who holds the key, and whether its use is to be recorded; None if it does not hold."""
    found = connection.execute(_HOLDER, {"hash": hash_key(secret)}).one_or_none()
    if found is None:
        return None
    key_id, scopes, addresses, expires_at, use_is_due, *tenant = found
    held = frozenset(map(Scope, scopes.split()))
    return Holder(_tenant(tenant), held, key_id, addresses, expires_at), bool(use_is_due)


def operator(connection: Connection) -> Holder:
    """Return who needs no key of a tenant's: the default tenant, with every scope."""
    tenant = find_tenant(connection, DEFAULT_TENANT)
    assert tenant is not None, "the migrations make it"
    return Holder(tenant, _EVERYTHING, OPERATOR)


def find_tenant(connection: Connection, name: str) -> Tenant | None:
    """Return the tenant if there is one."""
    found = connection.execute(_TENANT, {"tenant": name}).one_or_none()
    return None if found is None else _tenant(found)


def _tenant(values: Iterable[object]) -> Tenant:
    return Tenant(**dict(zip(_tenants.c.keys(), values, strict=True)))


def record_use(session: Session, secret: str) -> None:
    """Remember that the key was used now."""
    session.execute(update(Key).where(Key.hash == hash_key(secret)).values(last_used_at=clock()))


def remind(session: Session, within_s: float) -> list[Key]:
    """Tell the webhooks of tenants, once, of their keys that expire within so many seconds."""
    due = (
        select(Key)
        .where(
            Key.expires_at > clock(),
            Key.expires_at <= clock(within_s),
            Key.revoked_at.is_(None),
            Key.reminded_at.is_(None),
        )
        .order_by(Key.id)
        .with_for_update(skip_locked=True)
    )
    keys = list(session.scalars(due))
    for key in keys:
        tell_expiring(session, key)
        key.reminded_at = session.scalars(select(clock())).one()
    session.flush()
    return keys
