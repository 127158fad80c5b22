"""A team's work from its key to nothing left: large uploads, webhooks, events, files, deletion."""

import hashlib
import io
from collections.abc import Iterator
from datetime import timedelta

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select, text, update
from tusclient.client import TusClient

from jobstore.blobs import UNSETTLED_S
from jobstore.dialects import clock, now
from jobstore.settings import Settings
from jobstore.tables import AuditRecord, Base, Blob, IncomingUpload, Key, Owned
from keeper.retention import retain_once
from keeper.sweep import sweep_uploads
from tests.api import files
from tests.api.conftest import ADMIN_KEY, ARTIFACT, Service, finished_job, running
from tests.keeper.webhooks.conftest import Receiver, listening, send_due, sender


@pytest.fixture
def red(settings: Settings) -> Iterator[Service]:
    """A new tenant's part of a service that may call webhooks on this machine."""
    settings.admin_key = SecretStr(ADMIN_KEY)
    settings.webhook_networks = "127.0.0.0/8"
    for service in running(settings):
        yield service.keyed(ADMIN_KEY).new_tenant("red")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with listening() as made:
        yield made


def upload(service: Service, content: bytes) -> str:
    """Send it by a tus client, in pieces; returns the upload's id."""
    headers = {"Authorization": service.http.headers["Authorization"]}
    client = TusClient(str(service.http.base_url.join("/uploads")), headers=headers)
    uploader = client.uploader(file_stream=io.BytesIO(content), chunk_size=17_000)
    uploader.upload()
    return str(uploader.url).rpartition("/")[2]


def test_what_a_team_has_made_is_all_gone_when_it_says_so(red: Service, receiver: Receiver) -> None:
    made = []
    for noun, content, more in (
        ("models", files.safetensors_file(), {"architecture": files.ARCHITECTURE}),
        ("datasets", files.npz_file(), {}),
    ):
        body = {"upload_id": upload(red, content)} | more
        answer = red.http.post(f"/{noun}", json=body).json()
        assert answer["sha256"] == hashlib.sha256(content).hexdigest()
        made.append(answer["links"]["self"])
    upload(red, b"this one is never used")
    hook = {"url": receiver.url, "events": ["job.succeeded"]}
    team = red.http.post("/webhooks", json=hook).json()
    job = finished_job(red, "red", webhook=hook)
    stream = {"Accept": "text/event-stream"}
    assert '"succeeded"' in red.http.get(job["links"]["events"], headers=stream).text
    assert send_due(red.database, sender(red.database, vault=red.services.vault)) == 2
    assert receiver.types() == ["job.succeeded"] * 2
    file = red.http.get(f"{job['links']['artifacts']}/model.atmc", follow_redirects=True)
    assert file.content == ARTIFACT

    made += [f"/models/{job['model_id']}", f"/datasets/{job['dataset_id']}"]
    for path in (job["links"]["self"], *made, team["links"]["self"]):
        assert red.http.delete(path).status_code == 204, path
    # Two hours later, with the upload past its time.
    with red.database.write() as session:
        touched = now(session) - timedelta(seconds=2 * UNSETTLED_S)
        session.execute(update(Blob).values(touched_at=touched))
        session.execute(update(IncomingUpload).values(expires_at=clock(-1)))
    store = red.services.store
    sweep_uploads(red.database, store)
    counts = retain_once(red.settings, red.database, store)
    assert set(vars(counts).values()) == {0}
    assert red.stored_files() == []
    with red.database.read() as session:
        for mapper in Base.registry.mappers:
            # The team's key is not of its making, and what was done stays on record.
            if issubclass(mapper.class_, Owned) and mapper.class_ not in (AuditRecord, Key):
                rows = select(func.count()).select_from(text(mapper.local_table.name))
                assert session.scalars(rows).one() == 0, mapper.local_table.name
