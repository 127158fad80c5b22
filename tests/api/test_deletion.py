"""`DELETE` takes what nothing else needs, and says what stands in the way."""

from datetime import timedelta
from typing import Any

from sqlalchemy import update

from jobstore.blobs import UNSETTLED_S
from jobstore.dialects import now
from jobstore.tables import Blob
from tests.api import files
from tests.api.conftest import Service, assert_problem


def grow_old(service: Service) -> None:
    """Let every stored object be old enough to be deleted at once."""
    with service.database.write() as session:
        then = now(session) - timedelta(seconds=2 * UNSETTLED_S)
        session.execute(update(Blob).values(touched_at=then))


def test_a_job_goes_with_its_files_then_its_model_and_data_set(
    service: Service, finished: dict[str, Any]
) -> None:
    links = finished["links"]
    grow_old(service)
    for upload in ("model", "dataset"):
        detail = assert_problem(service.http.delete(links[upload]), 409, "in_use")
        assert "DELETE /jobs/{id}" in detail
    assert service.http.delete(links["self"]).status_code == 204
    for link in ("self", "events", "report", "artifacts"):
        assert_problem(service.http.get(links[link]), 404, "not_found")
    assert_problem(service.http.delete(links["self"]), 404, "not_found")
    assert service.http.get(links["model"]).status_code == 200
    for upload in ("model", "dataset"):
        assert service.http.delete(links[upload]).status_code == 204
        assert_problem(service.http.get(links[upload]), 404, "not_found")
    assert [key for key in service.stored_files() if "blobs" in key] == []


def test_a_job_that_has_not_ended_is_cancelled_first(service: Service) -> None:
    links = service.send_job().json()["links"]
    detail = assert_problem(service.http.delete(links["self"]), 409, "not_ended")
    assert "/cancel" in detail
    assert service.http.post(links["cancel"]).status_code == 202
    assert service.http.delete(links["self"]).status_code == 204
    assert service.http.get("/jobs").json()["data"] == []


def test_the_same_bytes_of_another_upload_stay(service: Service) -> None:
    first, second = service.send_model().json(), service.send_model().json()
    grow_old(service)
    assert service.http.delete(first["links"]["self"]).status_code == 204
    assert len(service.stored_files()) == 1
    assert service.http.delete(second["links"]["self"]).status_code == 204
    assert service.stored_files() == []


def test_a_job_on_what_was_deleted_is_refused(service: Service) -> None:
    ids = {
        "model_id": service.send_model().json()["id"],
        "dataset_id": service.send_dataset().json()["id"],
    }
    assert service.http.delete(f"/datasets/{ids['dataset_id']}").status_code == 204
    refused = service.http.post("/jobs", json=ids | files.SPEC)
    assert_problem(refused, 422, "invalid_value", "dataset_id")
