"""A full disk is said, stops what can wait, and lets go on what makes room."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from sqlalchemy import event, text

from tests.api import files
from tests.api.conftest import Service, assert_problem, running, settings_in
from tests.api.test_resumable import begin, send


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, template: Any, broker: str) -> Iterator[Service]:
    yield from running(settings_in(tmp_path_factory.mktemp("own") / "data", template, broker))


@pytest.fixture
def full(own: Service, monkeypatch: pytest.MonkeyPatch) -> Service:
    """The service, on a disk with less room than is to be kept."""
    monkeypatch.setattr(own.services.disk, "_reserved", 2**62)
    return own


def test_a_full_disk_is_not_ready_and_takes_nothing_in(own: Service, full: Service) -> None:
    document = full.http.get("/readyz").json()
    assert (document["code"], document["param"]) == ("not_ready", "disk")

    def piecemeal() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        yield b"x" * 500_000

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    refused: list[httpx.Response] = [
        full.send_model(),
        full.send_dataset(),
        full.send_whole_job(),
        full.http.post("/jobs", json={"model_id": "mdl_0", "dataset_id": "dst_0", **files.SPEC}),
        full.http.post("/uploads", headers={"Tus-Resumable": "1.0.0", "Upload-Length": "5"}),
        full.http.post("/models", content=piecemeal(), headers=headers),
    ]
    for response in refused:
        assert_problem(response, 507, "insufficient_storage")
        assert int(response.headers["Retry-After"]) > 0
    assert full.stored_files() == []
    assert full.http.get("/jobs").json()["data"] == []


def test_what_makes_room_goes_on(own: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    job, model = own.send_job().json(), own.send_model().json()
    upload = begin(own, 1000)
    monkeypatch.setattr(own.services.disk, "_reserved", 2**62)
    assert_problem(send(own, upload, 0, b"x" * 10), 507, "insufficient_storage")
    assert own.http.get(job["links"]["self"]).status_code == 200
    assert own.http.post(job["links"]["cancel"]).status_code == 202
    for link in (upload, job["links"]["self"], model["links"]["self"]):
        assert own.http.delete(link).status_code == 204


def test_a_database_without_room_is_said(own: Service) -> None:
    with own.database.engine.connect() as connection:
        pages = connection.scalar(text("PRAGMA page_count"))
        connection.rollback()

    @event.listens_for(own.database.engine, "begin")
    def _bound(connection: Any) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    try:
        answers = [
            own.http.post("/webhooks", json={"url": f"https://hooks.example.com/{'x' * 1900}"})
            for _ in range(20)
        ]
    finally:
        event.remove(own.database.engine, "begin", _bound)
        with own.database.engine.connect() as connection:
            connection.exec_driver_sql(f"PRAGMA max_page_count = {2**30}")
    statuses = {answer.status_code for answer in answers}
    assert statuses <= {201, 409, 507}
    assert 507 in statuses
    full = next(answer for answer in answers if answer.status_code == 507)
    assert_problem(full, 507, "insufficient_storage")


def test_a_data_set_counts_as_it_is_when_it_is_inflated(
    tmp_path: Path, template: Any, broker: str
) -> None:
    """Zeros pack a thousandfold: what a job would have on its disk must fit the quota, too."""
    settings = settings_in(tmp_path / "data", template, broker)
    settings.max_stored_bytes = 500_000
    arrays = {
        "x_train": np.zeros((900, 32, 32), dtype=np.uint8),
        "y_train": np.zeros(900, dtype=np.int64),
    }
    content = files.npz_file(arrays, compressed=True)
    assert len(content) < 50_000
    for service in running(settings):
        assert_problem(service.send_dataset(content), 429, "quota_exceeded")
        smaller = {name: array[:100] for name, array in arrays.items()}
        assert service.send_dataset(files.npz_file(smaller)).status_code == 201
