"""The services that handlers work with: one database, object store and broker a process.

`ServicesDep` is what a handler asks for: it lets the caller in, and what the handler then gets is
the caller's part of database and store. `ProcessDep` is for calls that anybody may make. `AdminDep`
is an operator's, and sees everything; `TenantAdminDep` and `AuditorDep` see everything for an
operator, and for others their tenant's part.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from threading import Event
from typing import Annotated

from celery import Celery
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials
from prometheus_client import CollectorRegistry, Gauge
from starlette.concurrency import run_in_threadpool

from api import refusals
from api.auth import (
    UNKNOWN,
    Shown,
    bearer,
    check_address,
    check_nearby,
    identify,
    read_shown,
    require,
    still_holds,
)
from api.health.figures import new_registry
from api.jobs.streaming import EventFeed
from api.jobs.waiting import JobWatcher
from api.oidc.provider import Provider
from api.origin import origin_of
from api.ratelimit import remember, remember_expiry
from jobstore import logs
from jobstore.connections import Connections
from jobstore.database import Database, make_engine
from jobstore.disk import Disk
from jobstore.keys import Holder, Scope
from jobstore.objects import ObjectStore
from jobstore.rates import RateCounter
from jobstore.settings import Settings
from jobstore.tables import Tenant
from jobstore.tenancy import Origin
from jobstore.terms import Terms
from jobstore.vault import Vault
from jobstore.wakeups import make_celery


@dataclass(frozen=True)
class Services:
    """The parts of the process; opened without connecting, so that the API starts without them.

    `leaving` is set once the process is about to end.
    """

    settings: Settings
    database: Database
    store: ObjectStore
    celery: Celery
    watcher: JobWatcher
    feed: EventFeed
    registry: CollectorRegistry
    rates: RateCounter
    terms: Terms
    vault: Vault
    disk: Disk
    provider: Provider | None
    refusals: refusals.Refusals
    connections: Connections
    leaving: Event = field(default_factory=Event)

    def of(self, tenant: Tenant, origin: Origin) -> "Services":
        """Return the tenant's part of it, for who acts by `origin`."""
        return replace(
            self,
            database=self.database.of(tenant.id, origin),
            store=self.store.of(tenant.id),
            terms=Terms.of(self.settings, tenant),
        )


def open_services(settings: Settings) -> Services:
    """Return the parts that the settings choose; raises ValueError for a URL of another kind."""
    database = Database(make_engine(settings))
    watcher = JobWatcher(database)
    provider = Provider(settings) if settings.oidc_issuer is not None else None
    holds = partial(still_holds, settings, database, provider)
    feed, registry = EventFeed(database, watcher, holds), new_registry(database)
    streams = Gauge("atmc_event_streams", "Open event streams.", registry=registry)
    streams.set_function(lambda: feed.open)
    return Services(
        settings=settings,
        database=database,
        store=ObjectStore.from_settings(settings),
        celery=make_celery(settings),
        watcher=watcher,
        feed=feed,
        registry=registry,
        rates=RateCounter(settings.broker_url),
        terms=Terms.of(settings, Tenant()),
        vault=Vault.from_settings(settings),
        disk=Disk(settings),
        provider=provider,
        refusals=refusals.Refusals(database),
        connections=Connections.from_settings(settings),
    )


def _of_process(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


_Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]


# The dependencies are few, because each costs a request something, and all are `async`, because
# FastAPI runs others in a thread, which costs as much as what they do there.
async def _process(request: Request) -> Services:
    return _of_process(request)


async def _key(shown: _Bearer) -> str | None:
    return shown.credentials if shown else None


async def _shown(request: Request, sent: _Bearer) -> Shown:
    services = _of_process(request)
    secret = sent.credentials if sent else None
    return await read_shown(services.settings, services.provider, secret)


async def _holder(request: Request, sent: _Bearer) -> Holder:
    return await run_in_threadpool(_let_in, request, await _shown(request, sent))


def _let_in(request: Request, shown: Shown) -> Holder:
    services = _of_process(request)
    if shown.secret is None and not services.settings.asks_who_calls:
        check_nearby(request.url.hostname, request.headers.get("Origin"))
    origin = origin_of(request, UNKNOWN)
    holder = identify(services.settings, services.database, shown, origin)
    refusals.remember(request, holder)
    check_address(holder, origin.address)
    if holder.expires_at is not None:
        within_s = services.settings.key_reminder_s
        remember_expiry(request.scope, holder.expires_at, within_s)
    limit = Terms.of(services.settings, holder.tenant).requests_per_minute
    if limit is not None and (rate := services.rates.count(holder.tenant.id, limit)) is not None:
        remember(request.scope, rate)
    return holder


_HolderDep = Annotated[Holder, Depends(_holder)]


async def _of_caller(request: Request, holder: _HolderDep) -> Services:
    return _part(request, holder)


def _part(request: Request, holder: Holder, *also: Scope) -> Services:
    reading = request.method in ("GET", "HEAD")
    logs.about(tenant=holder.tenant.id)
    require(holder, Scope.READ if reading else Scope.WRITE, *also)
    return _of_process(request).of(holder.tenant, origin_of(request, holder.actor))


@dataclass(frozen=True)
class Caller:
    """A caller who is not let in yet, for calls so frequent that both steps share a thread.

    Changing threads costs such a call more than its query. Parameters are checked before the
    caller is; nothing else can be done without `let_in`.
    """

    _request: Request
    _shown: Shown

    def let_in(self) -> Services:
        """Return the caller's part, as `ServicesDep` does; it asks the database."""
        return _part(self._request, _let_in(self._request, self._shown))


async def _caller(request: Request, sent: _Bearer) -> Caller:
    return Caller(request, await _shown(request, sent))


async def _of_webhooks(request: Request, holder: _HolderDep) -> Services:
    return _part(request, holder, Scope.TENANT_ADMIN)


def _administered(request: Request, holder: Holder, *own: Scope) -> Services:
    """Return everything for an admin, and their tenant's part for those who have a scope of `own`.

    Of what is returned `database.tenant` tells which it is: None is everything.
    """
    require(holder, *own, Scope.ADMIN)
    services, origin = _of_process(request), origin_of(request, holder.actor)
    if Scope.ADMIN in holder.scopes:
        return replace(services, database=services.database.of(None, origin))
    logs.about(tenant=holder.tenant.id)
    return services.of(holder.tenant, origin)


async def _of_admin(request: Request, holder: _HolderDep) -> Services:
    return _administered(request, holder)


async def _of_tenant_admin(request: Request, holder: _HolderDep) -> Services:
    return _administered(request, holder, Scope.TENANT_ADMIN)


async def _of_auditor(request: Request, holder: _HolderDep) -> Services:
    return _administered(request, holder, Scope.AUDIT, Scope.TENANT_ADMIN)


ProcessDep = Annotated[Services, Depends(_process)]
KeyDep = Annotated[str | None, Depends(_key)]
CallerDep = Annotated[Caller, Depends(_caller)]
ServicesDep = Annotated[Services, Depends(_of_caller)]
AdminDep = Annotated[Services, Depends(_of_admin)]
TenantAdminDep = Annotated[Services, Depends(_of_tenant_admin)]
AuditorDep = Annotated[Services, Depends(_of_auditor)]
WebhooksDep = Annotated[Services, Depends(_of_webhooks)]
