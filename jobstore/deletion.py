"""Deleting what a user no longer wants: rows at once, bytes as soon as nothing refers to them."""

from contextlib import suppress
from dataclasses import dataclass, field

from sqlalchemy import delete, exists, select, update
from sqlalchemy.orm import Session

from jobstore import labels, products, transfers, webhooks
from jobstore.blobs import delete_unreferenced
from jobstore.database import Database
from jobstore.errors import InUse, NotEnded, NotFound
from jobstore.objects import ObjectStore
from jobstore.states import FINAL, SweepState, TrialState
from jobstore.sweeps import hold_sweep, list_trials
from jobstore.tables import Artifact, Dataset, Event, Job, Model, Sweep, SweepEvent, SweepTrial


@dataclass(frozen=True)
class Freed:
    """Objects that rows no longer name: blobs by tenant and digest, and keys of checkpoints."""

    blobs: list[tuple[str, str]]
    checkpoint_keys: list[str] = field(default_factory=list)


def delete_job(session: Session, job_id: str) -> Freed:
    """Delete the job, its events, artifacts and webhook, and the products that no other job has.

    What it was made of stays.

    Of one that is a trial its sweep goes on to say that there was one.

    Raises `NotFound`, and `NotEnded` for one that is queued or at work: it has to be cancelled.
    """
    job = session.get(Job, job_id, with_for_update=True, populate_existing=True)
    if job is None:
        raise NotFound("job", job_id)
    if job.state not in FINAL:
        raise NotEnded(f"the job is {job.state.value}", f"/jobs/{job_id}")
    digests = session.scalars(select(Artifact.sha256).where(Artifact.job_id == job_id))
    unused = [*digests, *products.forget_job(session, job_id, job.tenant_id)]
    freed = Freed([(job.tenant_id, digest) for digest in unused], job.checkpoint_keys)
    webhooks.forget_job(session, job_id)
    labels.forget(session, [job_id])
    transfers.forget(session, [job_id])
    for kind in (Artifact, Event):
        session.execute(delete(kind).where(kind.job_id == job_id))
    gone = {"job_id": None, "state": TrialState.SKIPPED, "reason": "Its job was deleted."}
    session.execute(update(SweepTrial).where(SweepTrial.job_id == job_id).values(gone))
    session.delete(job)
    session.flush()
    return freed


def delete_sweep(session: Session, sweep_id: str) -> Freed:
    """Delete the sweep with its webhook and all its trials, which are jobs.

    Raises `NotFound`, and `NotEnded` while it, or a trial that was retried, has not ended.
    """
    sweep = hold_sweep(session, sweep_id)
    if sweep.state is SweepState.RUNNING:
        raise NotEnded("the sweep is running", f"/sweeps/{sweep_id}")
    freed = Freed([])
    for trial in list_trials(session, sweep_id):
        if trial.job is not None:
            with suppress(NotFound):  # Somebody deleted it just now.
                of_job = delete_job(session, trial.job.id)
                freed.blobs.extend(of_job.blobs)
                freed.checkpoint_keys.extend(of_job.checkpoint_keys)
    webhooks.forget_sweep(session, sweep_id)
    for kind in (SweepTrial, SweepEvent):
        session.execute(delete(kind).where(kind.sweep_id == sweep_id))
    session.delete(sweep)
    session.flush()
    return freed


def delete_model(session: Session, model_id: str) -> Freed:
    """Delete the model; raises `NotFound`, and `InUse` while there is a job or sweep on it."""
    model = session.get(Model, model_id, with_for_update=True)
    if model is None:
        raise NotFound("model", model_id)
    if any(
        session.scalars(select(exists().where(kind.model_id == model_id))).one()
        for kind in (Job, Sweep)
    ):
        raise InUse("model", model_id)
    return _deleted(session, model)


def delete_dataset(session: Session, dataset_id: str) -> Freed:
    """Delete the data set; raises `NotFound`, and `InUse` while there is a job or sweep on it."""
    dataset = session.get(Dataset, dataset_id, with_for_update=True)
    if dataset is None:
        raise NotFound("dataset", dataset_id)
    if any(
        session.scalars(select(exists().where(kind.dataset_id == dataset_id))).one()
        for kind in (Job, Sweep)
    ):
        raise InUse("dataset", dataset_id)
    return _deleted(session, dataset)


def _deleted(session: Session, upload: Model | Dataset) -> Freed:
    labels.forget(session, [upload.id])
    transfers.forget(session, [upload.id])
    session.delete(upload)
    session.flush()
    return Freed([(upload.tenant_id, upload.sha256)])


def drop(database: Database, store: ObjectStore, freed: Freed) -> None:
    """Delete the bytes that nothing refers to any more; call it after the commit.

    What is too young to tell, or is left by a store that is away, is the keeper's.
    """
    for key in freed.checkpoint_keys:
        store.delete(key)
    if freed.blobs:
        with database.write() as session:
            delete_unreferenced(session, store, freed.blobs)
