"""Tenants: the teams that share the service."""

import re
from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.orm import Session

from jobstore.dialects import insert_if_absent
from jobstore.errors import NotFound, TenantGone
from jobstore.tables import Tenant
from jobstore.terms import TERM_NAMES

TENANT_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
"""It becomes part of keys in the object store, so it is a plain word."""


def get_or_create_tenant(session: Session, name: str) -> Tenant:
    """Return the tenant, made now if it is new; raises ValueError for what is no name of one.

    Raises `TenantGone` for one that is being erased.
    """
    if TENANT_NAME.fullmatch(name) is None:
        raise ValueError(f"{name!r} is no tenant's name: up to 63 of a-z, 0-9 and -")
    insert_if_absent(session, Tenant, {"id": name})
    tenant = get_tenant(session, name)
    if tenant.erase_requested_at is not None:
        raise TenantGone(name)
    return tenant


def get_tenant(session: Session, name: str) -> Tenant:
    """Return the tenant; raises `NotFound`."""
    tenant = session.get(Tenant, name)
    if tenant is None:
        raise NotFound("tenant", name)
    return tenant


def list_tenants(session: Session) -> list[Tenant]:
    """Return all tenants by name."""
    return list(session.scalars(select(Tenant).order_by(Tenant.id)))


def change_tenant(session: Session, name: str, terms: Mapping[str, float | None]) -> Tenant:
    """Change the tenant's own terms, by the names in `jobstore.terms`; raises `NotFound`."""
    tenant = get_tenant(session, name)
    for term in TERM_NAMES:
        if term in terms:
            setattr(tenant, term, terms[term])
    session.flush()
    return tenant
