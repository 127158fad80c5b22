"""Tenancy: the one place that decides which rows a tenant sees.

A session opened for a tenant (`Database.of`) finds nothing of any other: every query of an `Owned`
table, whoever wrote it, carries the condition that is added here, and what it inserts is that
tenant's. So another tenant's id and one that never was are answered alike. A session opened for
nobody (the workers, the keeper) sees every row; what it adds to a job belongs to the job's tenant.
"""

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from sqlalchemy import Executable, Select, bindparam, event, select
from sqlalchemy.orm import (
    LoaderCriteriaOption,
    ORMExecuteState,
    Session,
    UOWTransaction,
    with_loader_criteria,
)

from jobstore.tables import DEFAULT_TENANT, Base, Owned

_TENANT, _ORIGIN = "tenant", "origin"


@dataclass(frozen=True)
class Origin:
    """Who acts in a session, from where, and at which request: what the audit log says of it."""

    actor: str
    address: str | None = None
    request: str | None = None


def bind(session: Session, tenant: str) -> None:
    """Let the session see and make rows of `tenant` only."""
    session.info[_TENANT] = tenant


def bind_origin(session: Session, origin: Origin) -> None:
    """Let the session's records in the audit log say so."""
    session.info[_ORIGIN] = origin


def origin_of(session: Session) -> Origin:
    """Return who acts in the session; a session of nobody's appends no records."""
    origin: Origin = session.info[_ORIGIN]
    return origin


@cache
def own_row(mapped: type[Base]) -> Select[Any]:
    """Ask for the row of an `Owned` table whose `id` it is, if it is `tenant`'s."""
    columns = mapped.__table__.c
    return select(*columns).where(
        columns.id == bindparam("id"), columns.tenant_id == bindparam("tenant")
    )


def tenant_of(session: Session) -> str:
    """Return the session's tenant; a session without one makes rows of the default tenant."""
    return str(session.info.get(_TENANT, DEFAULT_TENANT))


@event.listens_for(Session, "do_orm_execute")
def _see_own_rows(execution: ORMExecuteState) -> None:
    tenant = execution.session.info.get(_TENANT)
    # Statements on bare tables cannot be narrowed; they name the tenant themselves.
    if tenant is not None and execution.is_orm_statement:
        narrowed = _narrowed if execution.is_select else _narrowed.__wrapped__
        execution.statement = narrowed(execution.statement, tenant)


@lru_cache(maxsize=256)
def _narrowed(statement: Executable, tenant: str) -> Executable:
    # The cache serves the queries that are module constants; others just pass through it.
    return statement.options(_own_rows(tenant))


@lru_cache(maxsize=1024)
def _own_rows(tenant: str) -> LoaderCriteriaOption:
    # The option is cached per tenant, because analysing the lambda takes longer than many queries.
    return with_loader_criteria(
        Owned, lambda owned: owned.tenant_id == tenant, include_aliases=True
    )


@event.listens_for(Session, "before_flush")
def _make_own_rows(session: Session, _context: UOWTransaction, _objects: Any) -> None:
    for row in session.new:
        if not isinstance(row, Owned):
            continue
        if row.tenant_id is None:
            row.tenant_id = tenant_of(session)
        elif session.info.get(_TENANT, row.tenant_id) != row.tenant_id:
            raise ValueError(f"a row of {row.tenant_id!r} in a session of {tenant_of(session)!r}")
