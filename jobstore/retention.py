"""Drops what is past its tenant's terms.

The bytes that nothing refers to after that are deleted by `jobstore.blobs`; what crashes have left
is found by `jobstore.stocktaking`.
"""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, delete, exists, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from jobstore import labels, products, transfers, webhooks
from jobstore.dialects import clock, now
from jobstore.tables import (
    Artifact,
    Dataset,
    Event,
    Job,
    Model,
    Sweep,
    SweepEvent,
    Tenant,
)
from jobstore.terms import Terms

_AT_ONCE = 1000
_JOBS_AT_ONCE = 200
# What is younger than this may belong to a transaction that has not committed yet.
_SETTLED_S = 60.0
_UNSYNCED = {"synchronize_session": False}


@dataclass(frozen=True)
class Expired:
    """The keys of checkpoints that no row names any more, to delete after the commit.

    `more` says that there may be more to drop.
    """

    checkpoint_keys: list[str]
    more: bool


def expire(session: Session, tenant: str, terms: Terms) -> Expired:
    """Drop some of what the tenant has had for longer than its terms say.

    One transaction drops what belonged to a few hundred jobs at most, so nobody waits long for it:
    call it again, each time in a new transaction, until there is no `more`.
    """
    more = False
    if terms.keep_artifacts_s is not None:
        more |= _drop_of_ended(session, Artifact, tenant, terms.keep_artifacts_s)
    if terms.keep_events_s is not None:
        more |= _drop_of_ended(session, Event, tenant, terms.keep_events_s)
        more |= _drop_of_sweeps(session, tenant, terms.keep_events_s)
        more |= webhooks.forget_old(session, tenant, terms.keep_events_s, _AT_ONCE) == _AT_ONCE
    if terms.keep_uploads_s is not None:
        _expire_uploads(session, Model, tenant, terms.keep_uploads_s)
        _expire_uploads(session, Dataset, tenant, terms.keep_uploads_s)
    if terms.keep_checkpoints_s is None:
        return Expired([], more)
    more |= products.expire(session, tenant, terms.keep_checkpoints_s, _AT_ONCE)
    return Expired(_forget_checkpoints(session, tenant, terms.keep_checkpoints_s), more)


def _forget_checkpoints(session: Session, tenant: str, keep_s: float) -> list[str]:
    old = (
        select(Job)
        .where(
            Job.tenant_id == tenant,
            Job.checkpoint_key.is_not(None),
            Job.finished_at < clock(-keep_s),
        )
        .limit(_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    keys = [key for job in session.scalars(old) for key in job.forget_checkpoints()]
    session.flush()
    return keys


_MARKS = {Artifact: Tenant.artifacts_expired_to, Event: Tenant.events_expired_to}


def _drop_of_ended(
    session: Session, kind: type[Artifact | Event], tenant: str, keep_s: float
) -> bool:
    """Drop what is left of the next jobs that ended long ago; returns whether there may be more.

    The tenant's mark says where to go on, because an ended job stays: without it every call would
    look at all jobs of former years.
    """
    mark = _MARKS[kind]
    reached = session.scalars(select(mark).where(Tenant.id == tenant)).one()
    # What ends right now may be committed later than what has ended after it.
    until = now(session, -max(keep_s, _SETTLED_S))
    ended = [Job.tenant_id == tenant, Job.finished_at <= until]
    if reached is not None:
        ended.append(Job.finished_at > reached)
    next_ones = select(Job.finished_at).where(*ended).order_by(Job.finished_at)
    moments = session.scalars(next_ones.limit(_JOBS_AT_ONCE)).all()
    if more := len(moments) == _JOBS_AT_ONCE:
        until = moments[-1] or until
        ended.append(Job.finished_at <= until)
    ids = session.scalars(select(Job.id).where(*ended)).all()
    gone = delete(kind).where(kind.job_id.in_(ids))
    session.execute(gone, execution_options=_UNSYNCED)
    reached_now = update(Tenant).where(Tenant.id == tenant).values({mark.key: until})
    session.execute(reached_now, execution_options=_UNSYNCED)
    return more


def _drop_of_sweeps(session: Session, tenant: str, keep_s: float) -> bool:
    """Drop the events of some sweeps that ended long ago; returns whether there may be more."""
    told = exists().where(SweepEvent.sweep_id == Sweep.id)
    ended = (Sweep.tenant_id == tenant, Sweep.finished_at < clock(-keep_s))
    ids = session.scalars(select(Sweep.id).where(*ended, told).limit(_JOBS_AT_ONCE)).all()
    gone = delete(SweepEvent).where(SweepEvent.sweep_id.in_(ids))
    session.execute(gone, execution_options=_UNSYNCED)
    return len(ids) == _JOBS_AT_ONCE


def _expire_uploads(
    session: Session,
    kind: type[Model | Dataset],
    tenant: str,
    keep_s: float,
) -> None:
    """Delete uploads that are old and unused; of those that only ended jobs used keep the row."""
    named = or_(*(exists().where(_file_of(user, kind) == kind.id) for user in _USERS))
    old = (
        select(kind.id)
        .where(
            kind.tenant_id == tenant,
            kind.created_at < clock(-keep_s),
            or_(kind.expired_at.is_(None), ~named),
        )
        .limit(_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    ids = session.scalars(old.where(~_in_use(kind, keep_s))).all()
    # The question is asked again, because a job that was queued before the lock shows only now.
    unused = and_(kind.id.in_(ids), ~_in_use(kind, keep_s))
    gone = update(kind).where(unused, named).values(expired_at=clock())
    session.execute(gone, execution_options=_UNSYNCED)
    session.execute(delete(kind).where(unused, ~named), execution_options=_UNSYNCED)
    kept = set(session.scalars(select(kind.id).where(kind.id.in_(ids))))
    labels.forget(session, set(ids) - kept)
    transfers.forget(session, list(set(ids) - kept))


def _in_use(kind: type[Model | Dataset], keep_s: float) -> ColumnElement[bool]:
    # A job that has not ended has no such moment. Two questions, because each is one look at the
    # index by file and moment, and a file may have had a million jobs.
    return or_(
        *(
            exists().where(_file_of(user, kind) == kind.id, condition)
            for user in _USERS
            for condition in (user.finished_at.is_(None), user.finished_at >= clock(-keep_s))
        )
    )


_USERS: tuple[type[Job | Sweep], ...] = (Job, Sweep)


def _file_of(user: type[Job | Sweep], kind: type[Model | Dataset]) -> InstrumentedAttribute[str]:
    return user.model_id if kind is Model else user.dataset_id
