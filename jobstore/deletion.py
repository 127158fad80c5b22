"""Deleting what a user no longer wants: rows at once, bytes as soon as nothing refers to them."""

from dataclasses import dataclass, field

from sqlalchemy import delete, exists, select
from sqlalchemy.orm import Session

from jobstore import products, webhooks
from jobstore.blobs import delete_unreferenced
from jobstore.database import Database
from jobstore.errors import InUse, NotEnded, NotFound
from jobstore.objects import ObjectStore
from jobstore.states import FINAL
from jobstore.tables import Artifact, Dataset, Event, Job, Model


@dataclass(frozen=True)
class Freed:
    """Objects that rows no longer name: blobs by tenant and digest, and keys of checkpoints."""

    blobs: list[tuple[str, str]]
    checkpoint_keys: list[str] = field(default_factory=list)


def delete_job(session: Session, job_id: str) -> Freed:
    """Delete the job, its events, artifacts and webhook, and the products that no other job has.

    What it was made of stays.

    Raises `NotFound`, and `NotEnded` for one that is queued or at work: it has to be cancelled.
    """
    job = session.get(Job, job_id, with_for_update=True, populate_existing=True)
    if job is None:
        raise NotFound("job", job_id)
    if job.state not in FINAL:
        raise NotEnded(f"the job is {job.state.value}")
    digests = session.scalars(select(Artifact.sha256).where(Artifact.job_id == job_id))
    gone = [*digests, *products.forget_job(session, job_id, job.tenant_id)]
    freed = Freed([(job.tenant_id, digest) for digest in gone], job.checkpoint_keys)
    webhooks.forget_job(session, job_id)
    for kind in (Artifact, Event):
        session.execute(delete(kind).where(kind.job_id == job_id))
    session.delete(job)
    session.flush()
    return freed


def delete_model(session: Session, model_id: str) -> Freed:
    """Delete the model; raises `NotFound`, and `InUse` while there is a job on it."""
    model = session.get(Model, model_id, with_for_update=True)
    if model is None:
        raise NotFound("model", model_id)
    if session.scalars(select(exists().where(Job.model_id == model_id))).one():
        raise InUse("model", model_id)
    return _deleted(session, model)


def delete_dataset(session: Session, dataset_id: str) -> Freed:
    """Delete the data set; raises `NotFound`, and `InUse` while there is a job on it."""
    dataset = session.get(Dataset, dataset_id, with_for_update=True)
    if dataset is None:
        raise NotFound("dataset", dataset_id)
    if session.scalars(select(exists().where(Job.dataset_id == dataset_id))).one():
        raise InUse("dataset", dataset_id)
    return _deleted(session, dataset)


def _deleted(session: Session, upload: Model | Dataset) -> Freed:
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
