"""What every handler works with: one database, one object store, one broker a process."""

from dataclasses import dataclass
from typing import Annotated

from celery import Celery
from fastapi import Depends, Request
from prometheus_client import CollectorRegistry, Gauge

from api.health.figures import new_registry
from api.jobs.streaming import EventFeed
from api.jobs.waiting import JobWatcher
from jobstore.database import Database, make_engine
from jobstore.objects import ObjectStore
from jobstore.settings import Settings
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


def _of(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(_of)]
