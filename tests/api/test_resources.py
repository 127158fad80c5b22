"""What a job asks of a worker, and what it says while no worker takes it."""

from typing import Any

import pytest

from jobstore import workers
from jobstore.wakeups import pending
from jobstore.workers import Offer, queue_of
from tests.api.conftest import Service, wait_until


def _shown(service: Service, job: dict[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = service.http.get(job["links"]["self"]).json()
    return shown


def test_a_job_that_no_known_worker_can_run_says_so_until_one_starts(service: Service) -> None:
    with service.database.write() as session:
        workers.announce(session, "small", Offer(gpus=1))
    job = service.send_job(resources={"device": "gpu", "gpus": 2}).json()
    assert job["resources"] == {"device": "gpu", "gpus": 2}
    waiting = _shown(service, job)["waiting"]
    assert waiting["code"] == job["waiting"]["code"] == "no_such_worker"
    assert "2-gpu worker" in waiting["message"]
    any_job = service.send_job().json()
    assert (any_job["resources"], any_job["waiting"]["code"]) == (None, "workers_busy")
    listed = service.http.get("/jobs").json()["data"]
    codes = [each["waiting"]["code"] for each in listed]
    assert codes == ["workers_busy", "no_such_worker"]

    with service.database.write() as session:
        workers.announce(session, "large", Offer(gpus=4))
    assert _shown(service, job)["waiting"]["code"] == "workers_busy"
    service.http.post(job["links"]["cancel"])
    assert _shown(service, job)["waiting"] is None


def test_a_wake_up_reaches_the_workers_that_can_run_the_job(service: Service) -> None:
    celery = service.services.celery
    queue = queue_of("gpu", 3)
    before = pending(celery, queue)
    job = service.send_job(resources={"device": "gpu", "gpus": 3}).json()
    wait_until(lambda: pending(celery, queue) == before + 1)
    service.http.post(job["links"]["cancel"])
    service.http.post(job["links"]["retry"])
    wait_until(lambda: pending(celery, queue) == before + 2)


@pytest.mark.parametrize(
    ("resources", "param"),
    [
        ({"device": "tpu"}, "resources.device"),
        ({"device": "gpu", "gpus": 0}, "resources.gpus"),
        ({"device": "cpu", "gpus": 1}, "resources"),
        ({"gpus": 1}, "resources.device"),
        ({"device": "cpu", "cores": 4}, "resources.cores"),
    ],
)
def test_what_cannot_be_had_is_refused(
    service: Service, resources: dict[str, Any], param: str
) -> None:
    response = service.send_job(resources=resources)
    assert response.status_code in (400, 422)
    assert response.json()["param"] == param
