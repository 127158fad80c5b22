"""The services that handlers work with: one database, object store and broker a process.

`ServicesDep` is what a handler asks for: it lets the caller in, and what the handler then gets is
the caller's part of database and store. `ProcessDep` is for calls that anybody may make and
`AdminDep` for those about keys and tenants; these two see everything.
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

from api.admission import begin
from api.auth import bearer, check_nearby, identify, require, still_holds
from api.health.figures import new_registry
from api.jobs.streaming import EventFeed
from api.jobs.waiting import JobWatcher
from api.ratelimit import remember
from jobstore import logs
from jobstore.database import Database, make_engine
from jobstore.disk import Disk
from jobstore.keys import Holder, Scope
from jobstore.objects import ObjectStore
from jobstore.rates import RateCounter
from jobstore.settings import Settings
from jobstore.tables import Tenant
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
    leaving: Event = field(default_factory=Event)

    def of(self, tenant: Tenant) -> "Services":
        """Return the tenant's part of it."""
        return replace(
            self,
            database=self.database.of(tenant.id),
            store=self.store.of(tenant.id),
            terms=Terms.of(self.settings, tenant),
        )


def open_services(settings: Settings) -> Services:
    """Return the parts that the settings choose; raises ValueError for a URL of another kind."""
    database = Database(make_engine(settings))
    watcher = JobWatcher(database)
    holds = partial(still_holds, settings, database)
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
    )


def _of_process(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


_Shown = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]


# The dependencies are few, because each costs a request something, and all are `async`, because
# FastAPI runs others in a thread, which costs as much as what they do there.
async def _process(request: Request) -> Services:
    return _of_process(request)


async def _key(shown: _Shown) -> str | None:
    return shown.credentials if shown else None


async def _holder(request: Request, shown: _Shown) -> Holder:
    return await run_in_threadpool(_let_in, request, shown.credentials if shown else None)


def _let_in(request: Request, key: str | None) -> Holder:
    begin(request.scope)
    services = _of_process(request)
    if key is None and services.settings.admin_key is None:
        check_nearby(request.url.hostname, request.headers.get("Origin"))
    holder = identify(services.settings, services.database, key)
    limit = Terms.of(services.settings, holder.tenant).requests_per_minute
    if limit is not None and (rate := services.rates.count(holder.tenant.id, limit)) is not None:
        remember(request.scope, rate)
    return holder


_HolderDep = Annotated[Holder, Depends(_holder)]


async def _of_caller(request: Request, holder: _HolderDep) -> Services:
    return _part(request, holder)


def _part(request: Request, holder: Holder) -> Services:
    reading = request.method in ("GET", "HEAD")
    logs.about(tenant=holder.tenant.id)
    require(holder, Scope.READ if reading else Scope.WRITE)
    return _of_process(request).of(holder.tenant)


@dataclass(frozen=True)
class Caller:
    """A caller who is not let in yet, for calls so frequent that both steps share a thread.

    Changing threads costs such a call more than its query. Parameters are checked before the
    caller is; nothing else can be done without `let_in`.
    """

    _request: Request
    _key: str | None

    def let_in(self) -> Services:
        """Return the caller's part, as `ServicesDep` does; it asks the database."""
        return _part(self._request, _let_in(self._request, self._key))


async def _caller(request: Request, shown: _Shown) -> Caller:
    return Caller(request, shown.credentials if shown else None)


async def _of_admin(request: Request, holder: _HolderDep) -> Services:
    require(holder, Scope.ADMIN)
    return _of_process(request)


ProcessDep = Annotated[Services, Depends(_process)]
KeyDep = Annotated[str | None, Depends(_key)]
CallerDep = Annotated[Caller, Depends(_caller)]
ServicesDep = Annotated[Services, Depends(_of_caller)]
AdminDep = Annotated[Services, Depends(_of_admin)]
