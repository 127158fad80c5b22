"""Counts and durations that outlive a process, kept beside the rows they are about.

`count` and `observe` only note what happened: it is added up right before the transaction commits
and is dropped with one that fails, so a figure never tells of something that was rolled back. The
rows are shared by all writers, so they are locked last, for as short a time as can be, and always
in the same order. `tell` is for what a process alone can see, such as its machine's GPUs.
"""

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Select, delete, event, select
from sqlalchemy.orm import Session

from jobstore.dialects import add_up, clock, upsert
from jobstore.tables import Metric

JOB_SECONDS = "atmc_job_seconds"
STAGE_SECONDS = "atmc_stage_seconds"
LEASES_LOST = "atmc_leases_lost"
UPLOADS = "atmc_uploads"
UPLOADED_BYTES = "atmc_uploaded_bytes"
WEBHOOK_DELIVERIES = "atmc_webhook_deliveries"
TRANSFERS = "atmc_transfers"
STORED_AT_MOST = "atmc_stored_bytes_at_most"
"""By tenant, so it is not shown: see `jobstore.blobs`."""
GPU_USED, GPU_TOTAL = "atmc_gpu_memory_used_bytes", "atmc_gpu_memory_total_bytes"

TOLD_WITHIN_S = 120.0
"""A gauge that nobody has set again within these seconds is not shown any more."""

BOUNDS_S: tuple[float, ...] = (1, 5, 15, 60, 300, 900, 3600, 14_400, 43_200, 86_400)
"""Upper bounds of the durations' buckets, in seconds; one more bucket has none."""

_NOTED = "metrics"
_BUCKET, _SUM = "le", "sum"

Labels = tuple[tuple[str, str], ...]


@dataclass
class Durations:
    """How many fell into each bucket (not added up from below), and all their seconds together."""

    buckets: list[float] = field(default_factory=lambda: [0.0] * (len(BOUNDS_S) + 1))
    seconds: float = 0.0


def count(session: Session, name: str, amount: float = 1, **labels: str) -> None:
    """Add `amount` to a counter when the transaction commits."""
    noted: Counter[tuple[str, str]] = session.info.setdefault(_NOTED, Counter())
    noted[name, json.dumps(labels, sort_keys=True)] += amount  # type: ignore[assignment]


def observe(session: Session, name: str, seconds: float, **labels: str) -> None:
    """Add a duration to a histogram when the transaction commits."""
    bucket = bisect_left(BOUNDS_S, seconds)
    count(session, name, 1, **labels, **{_BUCKET: str(bucket)})
    count(session, name, seconds, **labels, **{_BUCKET: _SUM})


def tell(session: Session, name: str, value: float, **labels: str) -> None:
    """Set a gauge; its owner must set it again more often than every `TOLD_WITHIN_S`."""
    row = {"name": name, "labels": json.dumps(labels, sort_keys=True)}
    upsert(session, Metric, row | {"value": value, "told_at": clock()})


def told(session: Session, name: str) -> dict[Labels, float]:
    """Return what is told of a figure, by its labels."""
    lately = Metric.told_at > clock(-TOLD_WITHIN_S)
    query = select(Metric.labels, Metric.value).where(Metric.name == name, lately)
    return _by_labels(session, query)


def forget_told(session: Session) -> None:
    """Delete what nobody tells any more."""
    session.execute(delete(Metric).where(Metric.told_at < clock(-TOLD_WITHIN_S)))


def counters(session: Session, name: str, **labels: str) -> dict[Labels, float]:
    """Return a counter's values by their labels, or only the one with exactly these labels."""
    query = select(Metric.labels, Metric.value).where(Metric.name == name)
    if labels:
        query = query.where(Metric.labels == json.dumps(labels, sort_keys=True))
    return _by_labels(session, query)


def forget(session: Session, name: str, **labels: str) -> None:
    """Delete the counter with exactly these labels."""
    its = (Metric.name == name, Metric.labels == json.dumps(labels, sort_keys=True))
    session.execute(delete(Metric).where(*its), execution_options={"synchronize_session": False})


def _by_labels(session: Session, query: Select[str, float]) -> dict[Labels, float]:
    return {tuple(json.loads(row.labels).items()): row.value for row in session.execute(query)}


def durations(session: Session, name: str) -> Mapping[Labels, Durations]:
    """Return a histogram's durations by their labels."""
    found: dict[Labels, Durations] = {}
    for labels, value in counters(session, name).items():
        bucket = dict(labels)[_BUCKET]
        rest = tuple(pair for pair in labels if pair[0] != _BUCKET)
        durations = found.setdefault(rest, Durations())
        if bucket == _SUM:
            durations.seconds = value
        else:
            durations.buckets[int(bucket)] = value
    return found


@event.listens_for(Session, "before_commit")
def _write_down(session: Session) -> None:
    noted: Counter[tuple[str, str]] | None = session.info.pop(_NOTED, None)
    if noted:
        session.flush()
        rows: Sequence[dict[str, object]] = [
            {"name": name, "labels": labels, "value": float(amount)}
            for (name, labels), amount in sorted(noted.items())
        ]
        add_up(session, Metric, rows, "value")
