"""Jobs: queued, listed, followed, finished, cancelled and retried."""

from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import delete

from api.jobs.acceptance import acceptance
from api.jobs.headline import Headline
from jobstore import leases
from jobstore.events import EventType, NewEvent
from jobstore.jobs import get_job
from jobstore.states import JobState
from jobstore.tables import CatalogueRow
from jobstore.wakeups import pending
from jobstore.workers import queue_of
from tests.api import files
from tests.api.conftest import Service, assert_problem, claimed, wait_until

ANY = queue_of(None, 0)


def test_a_job_by_ids_is_queued_and_a_worker_is_woken(service: Service) -> None:
    before = pending(service.services.celery, ANY)
    response = service.send_job(name="a tenth", time_limit_s=60)
    assert response.status_code == 202
    job = response.json()
    assert response.headers["Location"] == job["links"]["self"] == f"/jobs/{job['id']}"
    assert job["id"].startswith("job_")
    assert (job["state"], job["attempt"], job["progress"]) == ("queued", 0, 0)
    assert (job["name"], job["time_limit_s"]) == ("a tenth", 60)
    assert job["spec"] == files.SPEC
    assert (job["headline"], job["error"], job["finished_at"]) == (None, None, None)
    assert datetime.fromisoformat(job["created_at"]).utcoffset() is not None
    assert service.http.get(job["links"]["self"]).json() == job
    assert service.http.get(job["links"]["model"]).json()["id"] == job["model_id"]
    assert service.http.get(job["links"]["dataset"]).json()["id"] == job["dataset_id"]
    wait_until(lambda: pending(service.services.celery, ANY) == before + 1)


def test_a_job_with_its_files_is_queued_in_one_request(service: Service) -> None:
    response = service.send_whole_job(model=files.torch_file())
    assert response.status_code == 202
    job = response.json()
    assert job["spec"] == files.SPEC
    assert job["time_limit_s"] == service.settings.time_limit_s
    model = service.http.get(job["links"]["model"]).json()
    assert (model["architecture"], model["format"]) == (files.ARCHITECTURE, "torch")
    assert len(service.stored_files()) == 2


def test_without_a_worker_s_catalogue_jobs_and_models_are_not_taken_in(service: Service) -> None:
    with service.database.write() as session:
        session.execute(delete(CatalogueRow))
    for response in (service.send_whole_job(), service.send_model()):
        assert_problem(response, 503, "no_worker")
        assert response.headers["Retry-After"] == "5"
    assert service.stored_files() == []


def test_lists_page_through_all_jobs_newest_first(service: Service) -> None:
    ids = [service.send_job().json()["id"] for _ in range(5)]
    service.http.post(f"/jobs/{ids[2]}/cancel")
    seen, cursor = [], None
    while True:
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = service.http.get("/jobs", params=params).json()
        seen += [job["id"] for job in page["data"]]
        assert page["has_more"] == (page["next"] is not None)
        if not page["has_more"]:
            break
        cursor = page["next"]
    assert seen == ids[::-1]
    cancelled = service.http.get("/jobs", params={"state": "cancelled"}).json()["data"]
    assert [job["id"] for job in cancelled] == [ids[2]]


@pytest.mark.parametrize(
    ("query", "code", "param"),
    [
        ("/jobs?state=done", "invalid_value", "state"),
        ("/jobs?limit=0", "invalid_value", "limit"),
        ("/jobs?limit=101", "invalid_value", "limit"),
        ("/jobs?cursor=%00", "invalid_value", "cursor"),
        ("/jobs?cursor=AA==", "invalid_value", "cursor"),
        ("/jobs?cursor=am9iXzA=", "invalid_value", "cursor"),
        ("/jobs?colour=red", "unknown_field", "colour"),
        ("/jobs/job_0?wait=61", "invalid_value", "wait"),
        ("/jobs/job_0?wait=x", "invalid_value", "wait"),
        ("/jobs/job_0/events?after=-1", "invalid_value", "after"),
    ],
)
def test_a_query_that_is_not_understood_is_refused(
    shared: Service, query: str, code: str, param: str
) -> None:
    assert_problem(shared.http.get(query), 422, code, param)


@pytest.mark.parametrize("path", ["", "/events", "/report", "/artifacts", "/artifacts/model.atmc"])
def test_an_unknown_job_is_not_found(shared: Service, path: str) -> None:
    detail = assert_problem(shared.http.get(f"/jobs/job_0{path}"), 404, "not_found")
    assert "GET /jobs lists" in detail


def report(service: Service, attempt: leases.Attempt, *events: NewEvent) -> None:
    with service.database.write() as session:
        leases.report(session, attempt, events)


def test_progress_and_events_of_a_running_job_are_told(service: Service) -> None:
    job = service.send_job().json()
    attempt = claimed(service)
    progress = {"stage": "robust", "epoch": 2, "epochs": 5, "progress": 0.25, "eta_s": 12.5}
    report(
        service,
        attempt,
        NewEvent(EventType.STAGE, {"stage": "robust", "status": "started"}),
        NewEvent(EventType.PROGRESS, progress),
    )
    now = service.http.get(job["links"]["self"]).json()
    assert progress.items() <= now.items()
    assert (now["state"], now["attempt"]) == ("running", 1)
    page = service.http.get(job["links"]["events"]).json()
    assert (page["has_more"], page["next"]) == (False, None)
    assert [event["seq"] for event in page["data"]] == list(range(1, len(page["data"]) + 1))
    assert page["data"][0] | {"time": None} == {
        "seq": 1,
        "time": None,
        "type": "state",
        "attempt": 0,
        "trace_id": None,
        "state": "queued",
    }
    assert progress.items() <= page["data"][-1].items()


def test_events_are_read_on_from_the_last_one_seen(service: Service) -> None:
    job = service.send_job().json()
    attempt = claimed(service)
    metrics = [NewEvent(EventType.METRIC, {"stage": "robust", "epoch": n}) for n in range(5)]
    report(service, attempt, *metrics)
    whole = service.http.get(job["links"]["events"]).json()["data"]
    seen: list[dict[str, Any]] = []
    after = 0
    while after is not None:
        params = {"after": after, "limit": 3}
        page = service.http.get(job["links"]["events"], params=params).json()
        seen += page["data"]
        after = page["next"]
    assert seen == whole
    assert len(whole) >= 7


def test_a_failed_job_keeps_its_error_its_events_and_its_inputs(service: Service) -> None:
    job = service.send_job().json()
    attempt = claimed(service)
    with service.database.write() as session:
        error = leases.JobError("non_finite_weights", "fc.weight holds NaN", "fc.weight")
        leases.finish(session, attempt, JobState.FAILED, error=error)
    failed = service.http.get(job["links"]["self"])
    assert failed.status_code == 200
    assert failed.json()["state"] == "failed"
    assert failed.json()["error"] == {
        "code": "non_finite_weights",
        "message": "fc.weight holds NaN",
        "param": "fc.weight",
    }
    assert service.http.get(job["links"]["events"]).json()["data"][-1]["type"] in ("error", "state")
    assert len(service.stored_files()) == 2
    detail = assert_problem(service.http.get(job["links"]["report"]), 404, "not_found")
    assert "the job is failed" in detail
    assert_problem(service.http.post(job["links"]["cancel"]), 409, "already_finished")


def test_a_finished_job_carries_its_headline(finished: dict[str, Any]) -> None:
    assert finished["state"] == "succeeded"
    assert set(finished["headline"]) == set(Headline.model_fields)
    assert finished["headline"]["nonzeros"] == 5000
    assert finished["headline"]["file_ratio"] == 0.05
    assert finished["headline"]["accepted"] is True


@pytest.mark.parametrize(
    ("accept", "passed"),
    [
        (None, None),
        ({"robust_accuracy": 0.8175}, [True]),
        ({"robust_accuracy": 0.82, "file_ratio": 0.05}, [False, True]),
        # 0.98 - 0.96 is not 0.02 in binary.
        ({"clean_accuracy_drop": 0.02}, [True]),
    ],
)
def test_a_finished_job_says_of_each_threshold_whether_it_is_met(
    accept: dict[str, float] | None, passed: list[bool] | None
) -> None:
    figures = {"clean_accuracy_before": 0.98, "clean_accuracy_after": 0.96, "file_ratio": 0.05}
    figures |= {"robust_accuracy_before": 0.84, "robust_accuracy_after": 0.8175}
    spec = {"accept": accept} if accept else {}
    found = acceptance(spec, Headline(**figures))
    assert (found and [threshold.passed for threshold in found]) == passed
    assert acceptance(spec, None) is None


def test_a_headline_has_every_figure_and_those_of_a_newer_worker_too(service: Service) -> None:
    job = service.send_job().json()
    attempt = claimed(service)
    told = {"k": 7, "seconds": 3, "energy": {"joules": 2.5}}
    with service.database.write() as session:
        leases.finish(session, attempt, JobState.SUCCEEDED, headline=told)
    headline = service.http.get(job["links"]["self"]).json()["headline"]
    assert headline == dict.fromkeys(Headline.model_fields) | told


def test_a_queued_job_is_cancelled_at_once_and_only_once(service: Service) -> None:
    job = service.send_job().json()
    first = service.http.post(job["links"]["cancel"])
    assert (first.status_code, first.json()["state"]) == (202, "cancelled")
    again = service.http.post(job["links"]["cancel"])
    assert (again.status_code, again.json()) == (200, first.json())


def test_a_running_job_is_asked_to_end(service: Service) -> None:
    job = service.send_job().json()
    claimed(service)
    answer = service.http.post(job["links"]["cancel"])
    assert (answer.status_code, answer.json()["state"]) == (202, "validating")
    assert answer.json()["cancel_requested_at"] is not None
    with service.database.read() as session:
        assert get_job(session, job["id"]).cancel_requested_at is not None


def test_a_cancelled_job_is_retried_and_a_worker_woken(service: Service) -> None:
    job = service.send_job().json()
    service.http.post(job["links"]["cancel"])
    before = pending(service.services.celery, ANY)
    again = service.http.post(job["links"]["retry"])
    assert (again.status_code, again.json()["state"]) == (202, "queued")
    assert (again.json()["id"], again.json()["cancel_requested_at"]) == (job["id"], None)
    wait_until(lambda: pending(service.services.celery, ANY) == before + 1)
    assert claimed(service).job_id == job["id"]


def test_a_failed_job_is_retried_once_a_key(service: Service) -> None:
    job = service.send_job().json()
    attempt = claimed(service)
    with service.database.write() as session:
        leases.set_checkpoint(session, attempt, "checkpoints/1")
        error = leases.JobError("time_limit", "too long")
        leases.finish(session, attempt, JobState.FAILED, error=error)
    key = {"Idempotency-Key": "once-more"}
    first, second = (service.http.post(job["links"]["retry"], headers=key) for _ in range(2))
    assert (first.status_code, first.json()["error"]) == (202, None)
    assert second.json() == first.json()
    with service.database.read() as session:
        row = get_job(session, job["id"])
    assert (row.retries, row.checkpoint_key) == (1, "checkpoints/1")
    # Without the key it is another request, and the job waits already.
    said = assert_problem(service.http.post(job["links"]["retry"]), 409, "not_retryable", None)
    assert "queued cannot be retried" in said


def test_what_succeeded_or_is_not_there_is_not_retried(
    service: Service, finished: dict[str, Any]
) -> None:
    assert_problem(service.http.post(finished["links"]["retry"]), 409, "not_retryable")
    assert_problem(service.http.post("/jobs/job_0/retry"), 404, "not_found")
