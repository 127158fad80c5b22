"""The workers there are, what each has for a job, and which of them a job may run on.

A job asks for a device (`cpu`, `gpu`, or none: any will do) and for a number of GPUs. A worker
says what it has when it starts and again every heartbeat; who has been silent for long is lost.
"""

from dataclasses import dataclass
from functools import lru_cache

from sqlalchemy import ColumnElement, Select, and_, delete, or_, select
from sqlalchemy.orm import Session

from jobstore.dialects import clock, upsert
from jobstore.tables import Job, WorkerRow

CPU, GPU = "cpu", "gpu"

_QUEUE = "atmc"
_FORGET_S = 86_400.0


@dataclass(frozen=True, order=True)
class Offer:
    """The devices of a worker for the one job that it runs at a time: GPUs, or else its CPU."""

    gpus: int = 0

    @property
    def device(self) -> str:
        """The device of the jobs it takes."""
        return GPU if self.gpus else CPU

    def suits(self, job: Job) -> bool:
        """Tell whether the job may run on such a worker."""
        own_kind = job.device == self.device and job.gpus <= self.gpus
        return not job.awaits_inputs and (job.device is None or own_kind)

    def suitable(self) -> ColumnElement[bool]:
        """Return what `suits` tells, as a condition on `Job`."""
        own_kind = and_(Job.device == self.device, Job.gpus <= self.gpus)
        return and_(or_(Job.device.is_(None), own_kind), Job.awaits_inputs.is_(False))

    def queues(self) -> list[str]:
        """Where the wake-ups for its jobs arrive."""
        if not self.gpus:
            return [queue_of(None, 0), queue_of(CPU, 0)]
        return [queue_of(None, 0), *(queue_of(GPU, count + 1) for count in range(self.gpus))]


def queue_of(device: str | None, gpus: int) -> str:
    """Return the queue of the wake-ups for jobs that ask for this.

    Each number of GPUs has its own, so that a wake-up reaches only who can do something about it.
    """
    if device is None:
        return _QUEUE
    return f"{_QUEUE}.{device}{gpus or ''}"


def announce(session: Session, owner: str, offer: Offer) -> None:
    """Record that the worker is there, and what it has."""
    upsert(session, WorkerRow, {"owner": owner, "gpus": offer.gpus, "seen_at": clock()})


def withdraw(session: Session, owner: str) -> None:
    """Record that the worker ends."""
    session.execute(delete(WorkerRow).where(WorkerRow.owner == owner))


def known_offers(session: Session, *, seen_within_s: float) -> set[Offer]:
    """Return what the workers have that were heard of in the last `seen_within_s` seconds."""
    return {Offer(gpus) for gpus in session.scalars(_known(seen_within_s))}


@lru_cache
def _known(seen_within_s: float) -> Select[int]:
    rows = WorkerRow.__table__.c
    return select(rows.gpus).distinct().where(rows.seen_at > clock(-seen_within_s))


def forget_lost(session: Session) -> None:
    """Delete the rows of workers that have been silent for a day."""
    session.execute(delete(WorkerRow).where(WorkerRow.seen_at < clock(-_FORGET_S)))
