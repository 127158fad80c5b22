"""A session of a tenant finds, changes and makes nothing of any other."""

import pytest
from sqlalchemy import delete, func, select, update

from jobstore import artifacts, events, jobs, leases, uploads
from jobstore.database import Database
from jobstore.errors import NotFound
from jobstore.leases import NewArtifact
from jobstore.states import JobState
from jobstore.tables import Artifact, Event, Job, Model
from jobstore.tenants import get_or_create_tenant


@pytest.fixture
def job(database: Database, add_job) -> Job:
    """A job of the default tenant that has succeeded."""
    job = add_job()
    with database.write() as session:
        get_or_create_tenant(session, "red")
        _, attempt = leases.claim(session, "w", lease_s=60)
        made = [NewArtifact("model.atmc", "application/octet-stream", "c" * 64, 1)]
        leases.finish(session, attempt, JobState.SUCCEEDED, headline={}, artifacts=made)
    return job


def test_nothing_of_another_tenant_is_found(database: Database, job: Job) -> None:
    reads = [
        lambda s: jobs.get_job(s, job.id),
        lambda s: uploads.get_model(s, job.model_id),
        lambda s: uploads.get_dataset(s, job.dataset_id),
        lambda s: artifacts.get_artifact(s, job.id, "model.atmc"),
        lambda s: jobs.request_cancel(s, job.id),
        lambda s: jobs.retry(s, job.id),
    ]
    for read in reads[:4]:
        with database.of("default").read() as session:
            read(session)
    for read in reads:
        with pytest.raises(NotFound), database.of("red").write() as session:
            read(session)
    with database.of("red").read() as session:
        assert jobs.list_jobs(session).jobs == []
        assert jobs.heads_of(session, [job.id]) == {}
        assert events.list_events(session, job.id) == []
        assert artifacts.list_artifacts(session, job.id) == []
        assert session.scalar(select(func.count()).select_from(Job)) == 0
        assert session.scalar(select(func.max(Event.seq))) is None
        assert session.scalars(select(Artifact.sha256).join(Job)).all() == []


def test_nothing_of_another_tenant_is_changed(database: Database, job: Job) -> None:
    with database.of("red").write() as session:
        assert session.execute(update(Job).values(name="x")).rowcount == 0
        assert session.execute(delete(Artifact)).rowcount == 0
    with database.read() as session:
        assert jobs.get_job(session, job.id).name is None
        assert len(artifacts.list_artifacts(session, job.id)) == 1


def _model(**owner: str) -> Model:
    return Model(
        id="mdl_1",
        filename="a",
        format="torch",
        architecture="lenet",
        sha256="a" * 64,
        bytes=1,
        **owner,
    )


def test_what_is_made_is_the_session_s_tenant_s(database: Database, job: Job) -> None:
    with database.of("red").write() as session:
        session.add(_model())
    with database.read() as session:
        assert session.get(Model, "mdl_1").tenant_id == "red"


def test_nothing_is_made_for_another_tenant(database: Database, job: Job) -> None:
    red = database.of("red")
    with pytest.raises(ValueError, match="'blue' in a session of 'red'"), red.write() as session:
        session.add(_model(tenant_id="blue"))


def test_a_job_on_anothers_model_is_not_queued(database: Database, job: Job) -> None:
    red = database.of("red")
    with pytest.raises(NotFound, match="model"), red.write() as session:
        uploads.hold_uploads(session, job.model_id, job.dataset_id)
    with red.write() as session:
        session.add(_model())
    with pytest.raises(NotFound, match="dataset"), red.write() as session:
        uploads.hold_uploads(session, "mdl_1", job.dataset_id)


@pytest.mark.parametrize("name", ["", "Red", "a/b", "..", "a" * 64, "-a", "a\n"])
def test_what_is_no_name_of_a_tenant_is_refused(database: Database, name: str) -> None:
    with pytest.raises(ValueError, match="no tenant's name"), database.write() as session:
        get_or_create_tenant(session, name)
