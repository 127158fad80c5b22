"""A job that starts from the compressed network of a denser one.

The job names the file by its digest, so that the blob stays until the job has ended, whatever
becomes of the denser one (`jobstore.blobs`).
"""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from jobstore.errors import UnsuitableStart
from jobstore.states import JobState
from jobstore.tables import Artifact, Dataset, Job, Model
from jobstore.uploads import get_dataset, get_model

FILE = "model.atmc"
"""The artifact that a job may start from."""


@dataclass(frozen=True)
class Start:
    """The denser job, and the digest of its file."""

    job_id: str
    sha256: str


def hold_start(session: Session, job_id: str, *, model: Model, dataset: Dataset) -> Start:
    """Return what a job on this model and data set would start from.

    The file stays until this transaction has ended, and then until the job that it makes has.
    Raises `UnsuitableStart`, which says why the job is none to start from.
    """
    job = session.get(Job, job_id)
    if job is None:
        raise UnsuitableStart("there is no such job")
    if job.state is not JobState.SUCCEEDED:
        raise UnsuitableStart(f"it is {job.state.value}: wait until it has succeeded")
    if _content(get_model(session, job.model_id)) != _content(model):
        raise UnsuitableStart("its model is another one")
    if get_dataset(session, job.dataset_id).sha256 != dataset.sha256:
        raise UnsuitableStart("its data set is another one")
    # Whoever deletes the row waits, and then finds that the blob is referred to.
    held = select(Artifact.sha256).where(Artifact.job_id == job_id, Artifact.name == FILE)
    sha256 = session.scalars(held.with_for_update(read=True)).one_or_none()
    if sha256 is None:
        raise UnsuitableStart(f"it has no {FILE}: it made none, or it has expired")
    return Start(job_id, sha256)


def _content(model: Model) -> tuple[object, ...]:
    """What an upload is, whoever sent it again."""
    return model.sha256, model.architecture, model.normalization
