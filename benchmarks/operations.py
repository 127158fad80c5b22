"""The service's operations on its database, as `benchmarks.growth` calls them.

Each takes a session that sees everything, as the keeper's and the workers' do, or binds it to the
tenant with the most rows, as the API does.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps

from obstore.store import MemoryStore
from sqlalchemy import select
from sqlalchemy.orm import Session

from benchmarks.filling import BIG, TIDY
from jobstore import (
    artifacts,
    blobs,
    deletion,
    deliveries,
    events,
    idempotency,
    jobs,
    leases,
    metrics,
    quotas,
    retention,
    stocktaking,
    tenancy,
    uploads,
    webhooks,
)
from jobstore.cursors import encode_cursor
from jobstore.idempotency import Answer, Request
from jobstore.leases import Attempt, JobError
from jobstore.listing import Which
from jobstore.objects import ObjectStore
from jobstore.states import FINAL, JobState
from jobstore.tables import Job, Webhook
from jobstore.terms import TERM_NAMES, Terms

_YEAR_S, _WEEK_S = 365 * 86_400.0, 7 * 86_400.0
# Streams that wait in one process.
_WATCHED = 500


@dataclass
class Ids:
    """Rows of a database that operations are about; `ended` are of the big tenant, newest first."""

    ended: list[str]
    middle: str
    oldest: str
    failed: str
    queued: str
    held: Attempt
    webhook: str
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    @classmethod
    def find(cls, session: Session) -> "Ids":
        """Look for them."""
        mine = Job.tenant_id == BIG
        ended = select(Job.id).where(mine, Job.state == JobState.SUCCEEDED)
        newest = session.scalars(ended.order_by(Job.id.desc()).limit(_WATCHED)).all()
        oldest = session.scalars(ended.order_by(Job.id).limit(1)).one()
        # Ids begin with their time, so the one half-way between two times lies half-way.
        halves = (int(oldest[4:16], 16) + int(newest[0][4:16], 16)) // 2
        held = session.scalars(select(Job).where(Job.state == JobState.RUNNING).limit(1)).one()
        assert held.owner is not None
        one = {
            state: session.scalars(
                select(Job.id).where(mine, Job.state == state).order_by(Job.id.desc()).limit(1)
            ).one()
            for state in (JobState.FAILED, JobState.QUEUED)
        }
        return cls(
            ended=list(newest),
            middle=f"job_{halves:012x}{'0' * 20}",
            oldest=oldest,
            failed=one[JobState.FAILED],
            queued=one[JobState.QUEUED],
            held=Attempt(held.id, held.attempt, held.owner),
            webhook=session.scalars(select(Webhook.id).where(Webhook.tenant_id == BIG)).first()
            or "",
        )


Operation = Callable[[Session, Ids], object]


def _by_tenant(operation: Operation) -> Operation:
    @wraps(operation)
    def bound(session: Session, ids: Ids) -> object:
        tenancy.bind(session, BIG)
        return operation(session, ids)

    return bound


def _create(session: Session, ids: Ids) -> object:
    head = jobs.get_job(session, ids.ended[0])
    model, dataset = uploads.hold_uploads(session, head.model_id, head.dataset_id)
    quotas.check_queue(session, 10_000)
    return jobs.create_job(
        session, spec=head.spec, model=model, dataset=dataset, max_attempts=3, time_limit_s=60
    )


def _lists(state: JobState | None, after: str) -> Operation:
    def run(session: Session, ids: Ids) -> object:
        cursor = encode_cursor(getattr(ids, after)) if after else None
        return jobs.list_jobs(session, Which(limit=100, cursor=cursor), state=state)

    return _by_tenant(run)


def _report(session: Session, ids: Ids) -> None:
    told = {"stage": "s", "epoch": 1, "epochs": 2, "progress": 0.5, "eta_s": 1.0}
    event = events.NewEvent(events.EventType.PROGRESS, told)
    leases.report(session, ids.held, [event])


def _begin(session: Session, ids: Ids) -> None:
    request = Request.new("POST /jobs", f"growth-{next(ids.numbers)}", "f" * 64)
    idempotency.begin(session, request)
    idempotency.finish(session, request, Answer(202, {}, {}))


def _finish(session: Session, ids: Ids) -> object:
    error = JobError("internal_error", "measured")
    return leases.finish(session, ids.held, JobState.FAILED, error=error)


API: dict[str, Operation] = {
    "read a job": lambda s, ids: jobs.get_job(s, ids.oldest),
    "create a job": _create,
    "cancel a job": lambda s, ids: jobs.request_cancel(s, ids.queued),
    "retry a job": lambda s, ids: jobs.retry(s, ids.failed),
    "delete a job": lambda s, ids: deletion.delete_job(s, ids.oldest),
    "list artifacts": lambda s, ids: artifacts.list_artifacts(s, ids.oldest),
    "list events, last page": lambda s, ids: events.list_events(s, ids.oldest, after=5),
    "begin and finish a request": _begin,
    "count what waits (quota)": lambda s, ids: quotas.check_queue(s, 500),
    "check what is stored (quota)": lambda s, ids: quotas.check_incoming(s, 10**14, 1),
    "list webhooks": lambda s, ids: webhooks.list_webhooks(s),
    "list deliveries": lambda s, ids: webhooks.list_deliveries(s, ids.webhook),
}

WORKER: dict[str, Operation] = {
    "claim": lambda s, ids: leases.claim(s, "growth", lease_s=30),
    "renew a lease": lambda s, ids: leases.renew(s, ids.held, lease_s=30, run_seconds=1.0),
    "append an event": _report,
    "finish a job": _finish,
    "give back what is held unknown": lambda s, ids: leases.release_unknown(s, "nobody"),
}

PROCESS: dict[str, Operation] = {
    "poll 500 streams": lambda s, ids: jobs.heads_of(s, ids.ended),
    "metrics: jobs by state": lambda s, ids: jobs.count_by_state(s),
    "metrics: queues": lambda s, ids: jobs.queues(s),
    "metrics: deliveries": lambda s, ids: webhooks.count_waiting(s),
    "metrics: sums": lambda s, ids: metrics.durations(s, metrics.JOB_SECONDS),
}


class _NoObjects(ObjectStore):
    """A store whose objects nobody deletes: the blobs' rows are what is measured."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())  # type: ignore[arg-type]


def _expires(tenant: str, **keep: float) -> Operation:
    terms = Terms(**(dict.fromkeys(TERM_NAMES) | keep))  # type: ignore[arg-type]
    return lambda session, _: retention.expire(session, tenant, terms)


def _unreferenced(session: Session, _: Ids) -> object:
    step = blobs.walk_on(session, blobs.START)
    return blobs.delete_unreferenced(session, _NoObjects(), step)


def _named_checkpoints(session: Session, _: Ids) -> object:
    return stocktaking.named_checkpoints(session)


KEEPER: dict[str, Operation] = {
    "sweep": lambda s, ids: leases.sweep(s),
    "draw deliveries": lambda s, ids: deliveries.claim(s, 32),
    "forget answers": lambda s, ids: idempotency.forget_expired(s),
    "expire events": _expires(BIG, keep_events_s=_YEAR_S),
    "expire events, none left": _expires(TIDY, keep_events_s=_YEAR_S),
    "expire artifacts": _expires(BIG, keep_artifacts_s=_YEAR_S),
    "expire artifacts, none left": _expires(TIDY, keep_artifacts_s=_YEAR_S),
    "expire uploads": _expires(BIG, keep_uploads_s=_WEEK_S),
    "expire checkpoints": _expires(BIG, keep_checkpoints_s=_WEEK_S),
    "checkpoints that are named": _named_checkpoints,
    "blobs that nothing refers to": _unreferenced,
}

OPERATIONS: dict[str, Operation] = (
    {name: _by_tenant(run) for name, run in API.items()}
    | {
        f"list {state.value if state else 'all'}{', deep' if after else ''}": _lists(state, after)
        for state in (None, *JobState)
        for after in ("", "middle")
        if not after or state is None or state in FINAL
    }
    | WORKER
    | PROCESS
    | KEEPER
)
