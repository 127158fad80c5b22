"""What the tests of leases share: attempts, how they end, and what they leave in the rows."""

from jobstore import artifacts, events, jobs, leases
from jobstore.database import Database
from jobstore.events import EventType, NewEvent
from jobstore.leases import Attempt, JobError, NewArtifact
from jobstore.tables import Job

CRASH = JobError("child_crashed", "killed by signal 9")
STAGE = NewEvent(EventType.STAGE, {"stage": "robust", "status": "started"})
HEADLINE = {"clean_accuracy_after": 0.1 + 0.2, "k": 7, "accepted": False, "nominal_ratio": None}
ARTIFACT = NewArtifact("model.atmc", "application/octet-stream", "c" * 64, 7)


def claim(database: Database, owner: str = "worker", lease_s: float = 30) -> Attempt:
    """Claim the next job, of which there is one."""
    with database.write() as session:
        claimed = leases.claim(session, owner, lease_s=lease_s)
    assert claimed is not None
    return claimed[1]


def stored_job(database: Database, job_id: str) -> Job:
    with database.read() as session:
        return jobs.get_job(session, job_id)


def history(database: Database, job_id: str) -> list[tuple[str, object]]:
    """Every event as its type and the most telling of its fields."""
    with database.read() as session:
        found = events.list_events(session, job_id)
    assert [event.seq for event in found] == list(range(1, len(found) + 1))
    return [
        (event.type, event.data.get("state") or event.data.get("code") or event.data.get("stage"))
        for event in found
    ]


def snapshot(database: Database, job_id: str) -> tuple[object, ...]:
    """All that is stored of a job: its columns, its events and its artifacts."""
    with database.read() as session:
        job = jobs.get_job(session, job_id)
        columns = tuple(getattr(job, column.name) for column in Job.__table__.columns)
        told = [(event.seq, event.type) for event in events.list_events(session, job_id)]
        return columns, told, artifacts.list_artifacts(session, job_id)
