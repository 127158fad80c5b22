"""The files that jobs made."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from jobstore.errors import NotFound
from jobstore.tables import Artifact


def list_artifacts(session: Session, job_id: str) -> list[Artifact]:
    """Return the job's artifacts by name; none before it has succeeded."""
    query = select(Artifact).where(Artifact.job_id == job_id).order_by(Artifact.name)
    return list(session.scalars(query))


def get_artifact(session: Session, job_id: str, name: str) -> Artifact:
    """Return one artifact; raises `NotFound`."""
    artifact = session.get(Artifact, (job_id, name))
    if artifact is None:
        raise NotFound("artifact", name)
    return artifact
