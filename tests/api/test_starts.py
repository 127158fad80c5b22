"""A job that starts from a denser one's network: what it may be, and how long the file stays."""

from pathlib import Path
from typing import Any

import numpy as np

from jobstore.blobs import delete_unreferenced
from jobstore.stocktaking import audit
from jobstore.tables import DEFAULT_TENANT
from tests.api import files
from tests.api.conftest import Service, assert_problem, finished_job
from tests.api.test_deletion import grow_old


def refused(service: Service, start: str, **changes: Any) -> str:
    answer = service.send_job(start_from=start, **changes)
    return assert_problem(answer, 422, "unsuitable_start", "start_from")


def test_it_starts_from_a_job_that_succeeded_on_the_same_bytes(
    service: Service, finished: dict[str, Any]
) -> None:
    # Sent anew, so with other ids.
    made = service.send_job(start_from=finished["id"])
    assert made.status_code == 202
    job = made.json()
    assert (job["start_from"], finished["start_from"]) == (finished["id"], None)
    assert service.http.get(job["links"]["self"]).json()["start_from"] == finished["id"]
    whole = {"architecture": files.ARCHITECTURE, "start_from": finished["id"], **files.SPEC}
    assert service.send_whole_job(spec=whole).json()["start_from"] == finished["id"]


def test_what_is_none_to_start_from_is_told_at_the_door(
    service: Service, finished: dict[str, Any]
) -> None:
    start = finished["id"]
    assert "no such job" in refused(service, "job_0")
    queued = service.send_job().json()
    assert "it is queued" in refused(service, queued["id"])
    weights = files.weights()
    name = next(iter(weights))
    weights[name] = weights[name] + np.float32(1)
    other = service.send_model(files.safetensors_file(weights)).json()["id"]
    assert "model is another" in refused(service, start, model_id=other)
    brighter = {key: array | 1 for key, array in files.images().items()}
    data = service.send_dataset(files.npz_file(brighter)).json()["id"]
    assert "data set is another" in refused(service, start, dataset_id=data)
    assert "chooses no entries" in refused(service, start, method="alr")
    channels = {"density": 0.5, "bits": 4, "structure": "channel"}
    assert "structure element" in refused(service, start, target=channels)
    assert service.http.delete(f"{finished['links']['self']}").status_code == 204
    assert "no such job" in refused(service, start)


def test_another_tenant_s_job_is_none_at_all(admin: Service) -> None:
    mine, theirs = admin.new_tenant("vision"), admin.new_tenant("audio")
    start = finished_job(mine, "vision")["id"]
    assert mine.send_job(start_from=start).status_code == 202
    assert "no such job" in refused(theirs, start)


def test_the_file_stays_until_the_job_has_ended_whatever_becomes_of_the_denser_one(
    service: Service, finished: dict[str, Any], tmp_path: Path
) -> None:
    job = service.send_job(start_from=finished["id"]).json()
    artifacts = service.http.get(finished["links"]["artifacts"]).json()["data"]
    blob = next(each["sha256"] for each in artifacts if each["name"] == "model.atmc")
    grow_old(service)
    assert service.http.delete(finished["links"]["self"]).status_code == 204

    def is_kept() -> bool:
        grow_old(service)
        with service.database.write() as session:
            delete_unreferenced(session, service.services.store, [(DEFAULT_TENANT, blob)])
            found = audit(session, service.services.store, upload_lifetime_s=0)
            assert (found.unreferenced, found.dangling) == (0, 0)
        return any(blob in key for key in service.stored_files())

    assert is_kept()
    service.http.post(job["links"]["cancel"])
    assert not is_kept()
