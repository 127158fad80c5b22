"""A POST under an Idempotency-Key acts once and is answered alike."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from api.strict_json import canonical
from jobstore.idempotency import Answer, Request, begin, finish
from tests.api import files
from tests.api.conftest import Service, assert_problem

KEY = {"Idempotency-Key": "a-key"}


def count(service: Service) -> int:
    return len(service.http.get("/jobs").json()["data"])


def test_the_same_request_is_answered_again_and_makes_one_job(service: Service) -> None:
    first = service.send_whole_job(**KEY)
    second = service.send_whole_job(**KEY)
    assert second.status_code == 202
    assert second.json() == first.json()
    assert second.headers["Location"] == first.headers["Location"]
    assert "Idempotent-Replayed" not in first.headers
    assert second.headers["Idempotent-Replayed"] == "true"
    assert count(service) == 1
    assert len(service.stored_files()) == 2


def test_a_job_by_ids_is_the_same_however_its_json_is_written(service: Service) -> None:
    first = service.send_job()
    body = {key: first.json()[key] for key in ("model_id", "dataset_id")} | files.SPEC
    answers = [
        service.http.post("/jobs", json=written, headers=KEY)
        for written in (body, dict(reversed(body.items())))
    ]
    assert answers[0].json()["id"] == answers[1].json()["id"] != first.json()["id"]


def test_another_body_under_the_key_is_refused(service: Service) -> None:
    service.send_whole_job(**KEY)
    other = files.safetensors_file(files.weights(num_classes=7))
    for response in (
        service.send_whole_job(model=other, **KEY),
        service.send_whole_job(dataset=files.npz_file(files.images(30)), **KEY),
        service.send_whole_job(spec={"architecture": "digits_cnn", **files.SPEC, "seed": 1}, **KEY),
    ):
        assert_problem(response, 422, "idempotency_conflict", "Idempotency-Key")
    assert count(service) == 1
    assert len(service.stored_files()) == 2


def test_a_refused_request_does_not_use_up_its_key(service: Service) -> None:
    assert_problem(service.send_whole_job(model=b"nonsense", **KEY), 422, "malformed_model")
    assert service.send_whole_job(**KEY).status_code == 202


def test_uploads_are_repeatable_too(service: Service) -> None:
    for path, content, data in (
        ("/models", files.safetensors_file(), {"architecture": files.ARCHITECTURE}),
        ("/datasets", files.npz_file(), {}),
    ):
        answers = [
            service.http.post(path, files={"file": ("f", content)}, data=data, headers=KEY)
            for _ in range(2)
        ]
        assert answers[0].status_code == 201
        assert answers[0].json() == answers[1].json()


def test_a_cancellation_is_answered_as_it_was(service: Service) -> None:
    cancel = service.send_job().json()["links"]["cancel"]
    first, second = (service.http.post(cancel, headers=KEY) for _ in range(2))
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json() == second.json()


@pytest.mark.parametrize("way", ["ids", "files"])
def test_concurrent_duplicates_make_one_job(service: Service, way: str) -> None:
    ids = {
        "model_id": service.send_model().json()["id"],
        "dataset_id": service.send_dataset().json()["id"],
    }

    def send(_: int) -> httpx.Response:
        if way == "files":
            return service.send_whole_job(**KEY)
        return service.http.post("/jobs", json=ids | files.SPEC, headers=KEY)

    assert_one_job(service, send)


def test_concurrent_duplicates_make_one_job_where_writers_do_not_wait(
    service_on_postgres: Service,
) -> None:
    assert_one_job(service_on_postgres, lambda _: service_on_postgres.send_whole_job(**KEY))


def assert_one_job(service: Service, send: Callable[[int], httpx.Response]) -> None:
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(send, range(20)))
    # Who came while the first was at work is told to come again; the others got its answer.
    for answer in answers:
        if answer.status_code != 202:
            assert_problem(answer, 409, "request_in_progress", "Idempotency-Key")
            assert answer.headers["Retry-After"] == "1"
    done = [answer for answer in answers if answer.status_code == 202]
    assert len(done) >= 1
    again = send(0)
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (202, "true")
    assert {answer.json()["id"] for answer in done} == {again.json()["id"]}
    assert count(service) == 1
    assert len(service.stored_files()) == 2


def test_a_key_whose_first_request_is_at_work_is_refused_until_it_is_answered(
    service: Service,
) -> None:
    job = service.send_job().json()
    with service.database.write() as session:
        # As another process leaves it that is about to cancel the job.
        fingerprint = hashlib.sha256(canonical({})).hexdigest()
        first = Request.new(f"POST {job['links']['cancel']}", KEY["Idempotency-Key"], fingerprint)
        assert begin(session, first) is None
    refused = service.http.post(job["links"]["cancel"], headers=KEY)
    assert_problem(refused, 409, "request_in_progress", "Idempotency-Key")
    assert service.http.get(job["links"]["self"]).json()["state"] == "queued"
    with service.database.write() as session:
        finish(session, first, Answer(202, {}, {"id": "of the first"}))
    assert service.http.post(job["links"]["cancel"], headers=KEY).json() == {"id": "of the first"}


@pytest.mark.parametrize("key", ["", "a" * 256, "a b", "\u00e9"])
def test_a_key_that_is_none_is_refused(service: Service, key: str) -> None:
    headers = {"Idempotency-Key": key.encode()}
    response = service.http.post("/jobs", json={}, headers=headers)
    assert_problem(response, 422, "invalid_value", "Idempotency-Key")
