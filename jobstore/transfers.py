"""Fetching files from elsewhere, and putting results there: what is due, and what came of it.

A model or data set that is fetched is there at once, without bytes: its `state` is `fetching`, then
`ready` or `failed`, and its `source` says how far it is. A job on it waits (`Job.awaits_inputs`);
if the file cannot be had, the job fails. Any number of processes may carry: a claim raises
`attempts`, which is what every later write is held against, and holds for `HELD_S`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, delete, exists, or_, select
from sqlalchemy.orm import Session

from jobstore import leases, metrics
from jobstore.dialects import clock, now
from jobstore.errors import LeaseLost
from jobstore.states import FileState, JobState
from jobstore.tables import WAITING, Dataset, Document, Job, Model, Transfer
from jobstore.workers import queue_of

MODEL, DATASET, RESULTS = "model", "dataset", "results"

HELD_S = 60.0
"""Whoever has said nothing for so long is taken for dead: another one begins anew."""

RETRY_AFTER_S = (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0)
"""Seconds between the tries of what may pass; after that it is given up."""


@dataclass(frozen=True)
class Carried:
    """A transfer that was claimed; `number` is the fencing token."""

    id: str
    number: int
    tenant: str
    kind: str
    asked: Document


def begin(session: Session, row: Model | Dataset | Job, asked: Document, bytes: int = 0) -> None:
    """Have the row's file fetched, or its results put there once it has succeeded."""
    kind = {Model: MODEL, Dataset: DATASET, Job: RESULTS}[type(row)]
    made = Transfer(tenant_id=row.tenant_id, id=row.id, kind=kind, asked=asked, bytes=bytes)
    session.add(made)
    session.flush()


def claim(session: Session, busy: Sequence[str], limit: int) -> list[Carried]:
    """Take up to `limit` that are due, of tenants that are not `busy`, each of another one."""
    succeeded = exists().where(Job.id == Transfer.id, Job.state == JobState.SUCCEEDED)
    query = (
        select(Transfer)
        .where(Transfer.due_at <= clock(), or_(Transfer.kind != RESULTS, succeeded))
        .where(Transfer.tenant_id.not_in(busy))
        .order_by(Transfer.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    taken: dict[str, Carried] = {}
    for row in session.scalars(query):
        if row.tenant_id in taken:
            continue
        row.attempts += 1
        row.due_at = now(session, HELD_S)
        taken[row.tenant_id] = Carried(row.id, row.attempts, row.tenant_id, row.kind, row.asked)
    return list(taken.values())


def hold(session: Session, carried: Carried) -> Transfer:
    """Lock the transfer for this transaction; raises `LeaseLost` if it is another's, or gone."""
    query = select(Transfer).where(Transfer.id == carried.id, Transfer.attempts == carried.number)
    row = session.scalars(query.with_for_update()).one_or_none()
    if row is None:
        raise LeaseLost(carried.id)
    return row


def renew(session: Session, carried: Carried, came: int | None = None) -> None:
    """Hold it longer, and tell how many bytes of a file have come; raises `LeaseLost`."""
    hold(session, carried).due_at = now(session, HELD_S)
    if came is None:
        return
    row = file_of(session, carried)
    row.source = {**(row.source or {}), "fetched_bytes": came}


def done(session: Session, carried: Carried) -> None:
    """Forget a transfer that has been made; raises `LeaseLost`."""
    session.delete(hold(session, carried))
    session.flush()


def put_off(session: Session, carried: Carried, code: str, message: str, *, passes: bool) -> bool:
    """Try again later, if that may help; returns whether it is given up. Raises `LeaseLost`."""
    transfer = hold(session, carried)
    gives_up = not passes or carried.number > len(RETRY_AFTER_S)
    if gives_up:
        session.delete(transfer)
    else:
        transfer.due_at = now(session, RETRY_AFTER_S[carried.number - 1])
    error = {"code": code, "message": message}
    if carried.kind == RESULTS:
        job = session.get_one(Job, carried.id, with_for_update=True, populate_existing=True)
        state = "failed" if gives_up else "waiting"
        told = {"state": state, "tries": carried.number, "error": error}
        job.results = {**(job.results or {}), **told}
    else:
        row = file_of(session, carried)
        row.source = {**(row.source or {}), "tries": carried.number, "error": error}
        if gives_up:
            row.state = FileState.FAILED
            _fail_jobs(session, row, leases.JobError(code, message, carried.kind))
    metrics.count(session, metrics.TRANSFERS, kind=carried.kind, outcome=_outcome(gives_up))
    session.flush()
    return gives_up


def _outcome(gives_up: bool) -> str:
    return "given_up" if gives_up else "failed"


def delivered(session: Session, carried: Carried, files: Sequence[str]) -> None:
    """Tell that a job's results lie where they were to be put; raises `LeaseLost`."""
    done(session, carried)
    job = session.get_one(Job, carried.id, with_for_update=True, populate_existing=True)
    told = {
        "state": "delivered",
        "tries": carried.number,
        "error": None,
        "files": list(files),
        "delivered_at": now(session).isoformat(),
    }
    job.results = {**(job.results or {}), **told}
    metrics.count(session, metrics.TRANSFERS, kind=RESULTS, outcome="done")


def file_of(session: Session, carried: Carried) -> Model | Dataset:
    """Return the model or data set that is fetched, locked like its transfer."""
    kind: type[Model | Dataset] = Model if carried.kind == MODEL else Dataset
    options = {"with_for_update": True, "populate_existing": True}
    row = session.get_one(kind, carried.id, **options)  # type: ignore[arg-type]
    assert isinstance(row, Model | Dataset)
    return row


def arrived(session: Session, row: Model | Dataset, bytes: int) -> list[str]:
    """Let the jobs go on that waited for this file alone; returns the queues to wake.

    Its row says already what the file is.
    """
    row.state = FileState.READY
    row.source = {**(row.source or {}), "fetched_bytes": bytes, "error": None}
    session.flush()
    waiting = select(Job).where(
        *_waiting_for(row),
        exists().where(Model.id == Job.model_id, Model.state == FileState.READY),
        exists().where(Dataset.id == Job.dataset_id, Dataset.state == FileState.READY),
    )
    queues = []
    for job in session.scalars(waiting.with_for_update()).all():
        job.awaits_inputs = False
        queues.append(queue_of(job.device, job.gpus))
    metrics.count(session, metrics.TRANSFERS, kind=_kind_of(row), outcome="done")
    session.flush()
    return queues


def _kind_of(row: Model | Dataset) -> str:
    return MODEL if isinstance(row, Model) else DATASET


def _waiting_for(row: Model | Dataset) -> tuple[ColumnElement[bool], ...]:
    named = Job.model_id if isinstance(row, Model) else Job.dataset_id
    return named == row.id, Job.awaits_inputs, WAITING  # type: ignore[return-value]


def _fail_jobs(session: Session, row: Model | Dataset, error: leases.JobError) -> None:
    waiting = select(Job).where(*_waiting_for(row)).with_for_update()
    for job in session.scalars(waiting).all():
        leases.fail_waiting(session, job, error)


def forget(session: Session, ids: Sequence[str]) -> None:
    """Carry nothing any more of what is deleted."""
    gone = delete(Transfer).where(Transfer.id.in_(ids))
    session.execute(gone, execution_options={"synchronize_session": False})
