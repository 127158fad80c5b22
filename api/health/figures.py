"""The figures of the whole service: read from the database each time Prometheus asks."""

from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from sqlalchemy.orm import Session

from jobstore import metrics
from jobstore.database import Database
from jobstore.jobs import count_by_state, queues
from jobstore.states import JobState
from jobstore.webhooks import count_waiting

_COUNTERS = {
    metrics.LEASES_LOST: ("Attempts whose worker was lost.", ()),
    metrics.UPLOADS: ("Files that were taken in.", ("kind",)),
    metrics.UPLOADED_BYTES: ("Bytes of the files that were taken in.", ("kind",)),
    metrics.TRANSFERS: ("Tries to fetch a file or put results.", ("kind", "outcome")),
    metrics.WEBHOOK_DELIVERIES: ("Tries to deliver a webhook.", ("outcome",)),
}
_TOLD = {
    metrics.GPU_USED: "Memory of a GPU that is in use.",
    metrics.GPU_TOTAL: "Memory that a GPU has.",
}
_DURATIONS = {
    metrics.JOB_SECONDS: ("Seconds from a job's first claim to its end.", ("state",)),
    metrics.STAGE_SECONDS: ("Seconds of a job's stage.", ("stage",)),
}


class StoreCollector(Collector):
    """The figures that stand in the database, read anew each time they are asked for."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def describe(self) -> Iterable[Metric]:
        """Nothing: to register it must not need the database."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Read everything in one transaction."""
        with self._database.read() as session:
            yield from self._jobs(session)
            yield from self._now(session)
            yield from self._sums(session)

    def _jobs(self, session: Session) -> Iterator[Metric]:
        states = GaugeMetricFamily("atmc_jobs", "Jobs by state.", labels=["state"])
        counts = count_by_state(session)
        for state in JobState:
            states.add_metric([state.value], counts.get(state, 0))
        yield states
        depth = GaugeMetricFamily("atmc_queue_depth", "Jobs that wait.", labels=["queue"])
        age = GaugeMetricFamily(
            "atmc_queue_age_seconds", "Seconds that the oldest job has waited.", labels=["queue"]
        )
        for name, queue in queues(session).items():
            depth.add_metric([name], queue.depth)
            age.add_metric([name], queue.oldest_s)
        yield from (depth, age)

    def _now(self, session: Session) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "atmc_webhooks_waiting", "Deliveries to make.", value=count_waiting(session)
        )
        for name, help_text in _TOLD.items():
            gauge = GaugeMetricFamily(name, help_text, labels=["worker", "gpu"])
            for values, value in metrics.told(session, name).items():
                gauge.add_metric([dict(values)["worker"], dict(values)["gpu"]], value)
            yield gauge

    def _sums(self, session: Session) -> Iterator[Metric]:
        for name, (help_text, labels) in _COUNTERS.items():
            counter = CounterMetricFamily(name, help_text, labels=labels)
            found = metrics.counters(session, name)
            # A counter without labels is there from the start, so that its first rise shows.
            for values, value in (found or ({} if labels else {(): 0.0})).items():
                counter.add_metric([dict(values)[label] for label in labels], value)
            yield counter
        for name, (help_text, labels) in _DURATIONS.items():
            histogram = HistogramMetricFamily(name, help_text, labels=labels)
            for values, durations in metrics.durations(session, name).items():
                bounds = [*map(str, metrics.BOUNDS_S), "+Inf"]
                buckets = list(zip(bounds, accumulate(durations.buckets), strict=True))
                of = [dict(values)[label] for label in labels]
                histogram.add_metric(of, buckets, sum_value=durations.seconds)
            yield histogram


def new_registry(database: Database) -> CollectorRegistry:
    """Return what `GET /metrics` shows of this process and of the service."""
    registry = CollectorRegistry()
    registry.register(StoreCollector(database))
    return registry
