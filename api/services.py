"""What every handler works with: one database, one object store, one broker a process.

`ServicesDep` is what a handler asks for: it lets the caller in, and what the handler then gets is
the caller's part of database and store. `ProcessDep` is for calls that anybody may make and
`AdminDep` for those about keys and tenants; these two see everything.
"""

from dataclasses import dataclass, replace
from typing import Annotated

from celery import Celery
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials
from prometheus_client import CollectorRegistry, Gauge

from api.auth import bearer, identify, require
from api.health.figures import new_registry
from api.jobs.streaming import EventFeed
from api.jobs.waiting import JobWatcher
from jobstore import logs
from jobstore.database import Database, make_engine
from jobstore.keys import Holder, Scope
from jobstore.objects import ObjectStore
from jobstore.settings import Settings
from jobstore.tables import Tenant
from jobstore.wakeups import make_celery


@dataclass(frozen=True)
class Services:
    """The parts of the process; opened without connecting, so that the API starts without them."""

    settings: Settings
    database: Database
    store: ObjectStore
    celery: Celery
    watcher: JobWatcher
    feed: EventFeed
    registry: CollectorRegistry

    def of(self, tenant: Tenant) -> "Services":
        """Return the tenant's part of it."""
        return replace(self, database=self.database.of(tenant.id), store=self.store.of(tenant.id))


def open_services(settings: Settings) -> Services:
    """Return the parts that the settings choose; raises ValueError for a URL of another kind."""
    database = Database(make_engine(settings))
    watcher = JobWatcher(database)
    feed, registry = EventFeed(database, watcher), new_registry(database)
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
    )


def _of_process(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ProcessDep = Annotated[Services, Depends(_of_process)]
_Shown = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]


def _holder(services: ProcessDep, shown: _Shown) -> Holder:
    return identify(services.settings, services.database, shown.credentials if shown else None)


_HolderDep = Annotated[Holder, Depends(_holder)]


def _of_caller(request: Request, services: ProcessDep, holder: _HolderDep) -> Services:
    reading = request.method in ("GET", "HEAD")
    logs.about(tenant=holder.tenant.id)
    require(holder, Scope.READ if reading else Scope.WRITE)
    return services.of(holder.tenant)


def _of_admin(services: ProcessDep, holder: _HolderDep) -> Services:
    require(holder, Scope.ADMIN)
    return services


ServicesDep = Annotated[Services, Depends(_of_caller)]
AdminDep = Annotated[Services, Depends(_of_admin)]
