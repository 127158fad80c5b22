"""Jobs: queued, listed, waited for, followed and cancelled."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import delete, event, text

from api.jobs.acceptance import acceptance
from jobstore import leases
from jobstore.events import EventType, NewEvent
from jobstore.jobs import get_job
from jobstore.objects import blob_key
from jobstore.states import JobState
from jobstore.tables import HEADLINE_FIELDS, CatalogueRow, Job
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


def changed(**changes: Any) -> dict[str, Any]:
    return files.SPEC | changes


N = files.dense_weights()


@pytest.mark.parametrize(
    ("changes", "code", "param", "said"),
    [
        ({"colour": "red"}, "unknown_field", "colour", "time_limit_s"),
        ({"architecture": "lenet"}, "unknown_field", "architecture", "model_id"),
        ({"target": {"k": 9, "bits": 4, "x": 1}}, "unknown_field", "target.x", "density"),
        ({"target": {"k": 9}}, "missing_field", "target.bits", "required"),
        ({"threat": None}, "invalid_value", "threat", "an object"),
        ({"method": None}, "missing_field", "method", "GET /methods"),
        ({"method": 3}, "invalid_value", "method", "GET /methods"),
        ({"method": "magic"}, "unknown_method", "method", "atmc"),
        (
            {"target": {"nominal_ratio": 1e-9, "bits": 4}},
            "k_out_of_range",
            "target.nominal_ratio",
            "leaves 0",
        ),
        ({"target": {"max_bytes": 0, "bits": 4}}, "invalid_value", "target.max_bytes", "least 1"),
        (
            {"target": {"k": 9, "bits": 4, "structure": "row"}},
            "invalid_value",
            "target.structure",
            "channel",
        ),
        ({"target": {"k": 0, "bits": 4}}, "k_out_of_range", "target.k", f"1 to {N}"),
        ({"target": {"k": -3, "bits": 4}}, "k_out_of_range", "target.k", f"1 to {N}"),
        ({"target": {"k": N + 1, "bits": 4}}, "k_out_of_range", "target.k", f"1 to {N}"),
        ({"target": {"density": 1e-9, "bits": 4}}, "k_out_of_range", "target.density", "leaves 0"),
        ({"target": {"density": 0, "bits": 4}}, "invalid_value", "target.density", "above 0"),
        ({"target": {"density": 1.1, "bits": 4}}, "invalid_value", "target.density", "most 1"),
        ({"target": {"k": 9, "density": 0.1, "bits": 4}}, "invalid_value", "target", "exactly one"),
        ({"target": {"bits": 4}}, "invalid_value", "target", "exactly one of k, density"),
        *(
            ({"target": {"k": 9, "bits": b}}, "invalid_value", "target.bits", f"{b!r}, expected")
            for b in (0, 9, 15, 17, 31, 33, -1, 4.5, "4", True)
        ),
        ({"threat": {"norm": "l7", "epsilon": 0.1}}, "invalid_value", "threat.norm", "linf"),
        *(
            ({"threat": {"norm": "linf", "epsilon": e}}, "invalid_value", "threat.epsilon", "8/255")
            for e in (0, 8, 1.5, "8", "8/255/2", "", True)
        ),
        ({"evaluation": {"attacks": ["magic"]}}, "invalid_value", "evaluation.attacks.0", "pgd"),
        ({"evaluation": {"attacks": []}}, "invalid_value", "evaluation.attacks", ""),
        ({"evaluation": {"max_images": 0}}, "invalid_value", "evaluation.max_images", "at least 1"),
        ({"accept": {"robust_accuracy": 2}}, "invalid_value", "accept.robust_accuracy", "most 1"),
        ({"accept": {"beauty": 1}}, "unknown_field", "accept.beauty", "robust_accuracy"),
        ({"seed": -1}, "invalid_value", "seed", "at least 0"),
        ({"seed": 1.5}, "invalid_value", "seed", "an integer"),
        ({"name": ""}, "invalid_value", "name", "at least 1"),
        ({"name": "a\0b"}, "invalid_value", "name", "pattern"),
        ({"time_limit_s": 0}, "invalid_value", "time_limit_s", "greater than 0"),
        ({"time_limit_s": 1e300}, "invalid_value", "time_limit_s", "less than or equal to"),
        ({"model_id": "mdl_0"}, "invalid_value", "model_id", "POST /models"),
        ({"dataset_id": "dst_0"}, "invalid_value", "dataset_id", "POST /datasets"),
        ({"model_id": 7}, "invalid_value", "model_id", "string"),
    ],
)
def test_a_spec_that_cannot_be_met_is_refused_with_the_place_and_the_range(
    shared_ids: dict[str, str],
    shared: Service,
    changes: dict[str, Any],
    code: str,
    param: str,
    said: str,
) -> None:
    body = {k: v for k, v in (shared_ids | files.SPEC | changes).items() if v is not None}
    if changes.get("threat", ...) is None:
        body["threat"] = None
    detail = assert_problem(shared.http.post("/jobs", json=body), 422, code, param)
    assert said in detail
    assert shared.http.get("/jobs").json()["data"] == []


@pytest.fixture(scope="module")
def shared_ids(shared: Service) -> dict[str, str]:
    """A model and a data set that stay."""
    return {
        "model_id": shared.send_model().json()["id"],
        "dataset_id": shared.send_dataset().json()["id"],
    }


@pytest.fixture(scope="module")
def wide_method(shared: Service) -> str:
    """A method whose schema has what those of today have not."""
    text = {"type": ["number", "string"], "exclusiveMinimum": 0, "maximum": 1, "pattern": "^./.$"}
    attacks = {"enum": ["fgsm", "pgd"]}
    properties = {
        "method": {"enum": ["wide"]},
        "epsilon": text | {"description": 'a number, or a fraction such as "8/255"'},
        "attacks": {"type": "array", "items": attacks, "minItems": 1, "uniqueItems": True},
        "either": {"oneOf": [{"const": 1}, {"const": 2}]},
    }
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    document = {"name": "wide", "description": "For the test.", "spec_schema": schema}
    with shared.database.write() as session:
        session.add(CatalogueRow(kind="method", name="wide", document=document))
    return "wide"


@pytest.mark.parametrize(
    ("field", "value", "param", "said"),
    [
        ("epsilon", 8, "epsilon", "8, expected a number above 0 and of at most 1 or a string"),
        ("epsilon", 8, "epsilon", '(a number, or a fraction such as "8/255")'),
        ("epsilon", "eight", "epsilon", "a string that matches ^./.$"),
        ("epsilon", None, "epsilon", "a number above 0"),
        ("attacks", [], "attacks", "an array with a length of at least 1"),
        ("attacks", ["pgd", "pgd"], "attacks", "none twice"),
        ("attacks", ["magic"], "attacks.0", "one of fgsm, pgd"),
        ("either", 3, "either", "oneOf"),
    ],
)
def test_whatever_a_method_s_schema_refuses_is_explained(
    shared: Service,
    shared_ids: dict[str, str],
    wide_method: str,
    field: str,
    value: Any,
    param: str,
    said: str,
) -> None:
    body = shared_ids | {"method": wide_method, field: value}
    detail = assert_problem(shared.http.post("/jobs", json=body), 422, "invalid_value", param)
    assert said in detail


@pytest.mark.parametrize("k", [1, N])
def test_both_ends_of_the_range_of_k_are_in_it(service: Service, k: int) -> None:
    assert service.send_job(target={"k": k, "bits": 8}).status_code == 202


def test_a_job_on_a_stored_model_is_checked_without_reading_its_file_again(
    service: Service,
) -> None:
    model = service.send_model().json()
    dataset = service.send_dataset().json()
    ids = {"model_id": model["id"], "dataset_id": dataset["id"]}
    service.services.store.delete(blob_key(model["sha256"]))
    for k, status in ((N, 202), (N + 1, 422)):
        body = ids | changed(target={"k": k, "bits": 4})
        assert service.http.post("/jobs", json=body).status_code == status


def test_k_is_left_to_the_job_where_the_model_s_row_is_of_an_older_version(
    service: Service,
) -> None:
    ids = {
        "model_id": service.send_model().json()["id"],
        "dataset_id": service.send_dataset().json()["id"],
    }
    with service.database.write() as session:
        session.execute(text("UPDATE models SET summary = '{}'"))
    assert service.http.get(f"/models/{ids['model_id']}").json()["dense_weights"] is None
    body = ids | changed(target={"k": N + 1, "bits": 4})
    assert service.http.post("/jobs", json=body).status_code == 202


THREAT = {"norm": "linf", "epsilon": "8/255"}


@pytest.mark.parametrize(
    "spec",
    [
        {"method": "evaluate", "threat": THREAT},
        {"method": "evaluate", "threat": THREAT, "accept": {"robust_accuracy": 0.5}},
        files.SPEC | {"threat": THREAT},
        files.SPEC | {"accept": {"clean_accuracy_drop": 0.02, "file_ratio": 0.05}},
    ],
)
def test_a_spec_that_the_published_schema_allows_is_kept_as_it_was_sent(
    service: Service, spec: dict[str, Any]
) -> None:
    assert service.send_job(spec).json()["spec"] == spec


def test_a_method_without_a_target_needs_none(service: Service) -> None:
    method = next(entry.document for entry in files.CATALOGUE if entry.kind == "method")
    schema = method["spec_schema"] | {"required": ["method"]}
    document = {"name": "look", "description": "Only looks.", "spec_schema": schema}
    schema["properties"] = schema["properties"] | {"method": {"enum": ["look"]}}
    with service.database.write() as session:
        session.add(CatalogueRow(kind="method", name="look", document=document))
    spec = {"method": "look"}
    assert service.send_job(spec).json()["spec"] == spec
    whole = {"architecture": files.ARCHITECTURE, **spec}
    assert service.send_whole_job(spec=whole).json()["spec"] == spec


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8, 16, 32])
def test_all_allowed_bits_are_allowed(
    shared_ids: dict[str, str], shared: Service, bits: int
) -> None:
    # Refused for k, so not for bits.
    body = shared_ids | changed(target={"k": 0, "bits": bits})
    assert_problem(shared.http.post("/jobs", json=body), 422, "k_out_of_range")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"seed": NaN}',
        b'{"seed": 1e999}',
        b'{"name": "\\ud800"}',
        b"\xff",
        b'{"a":' * 50_000,
        b'{"seed": ' + b"1" * 10_000 + b"}",
    ],
)
def test_a_body_that_is_not_json_is_refused(shared: Service, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    response = shared.http.post("/jobs", content=body, headers=headers)
    assert_problem(response, 400, "malformed_json")


def test_a_json_body_without_end_is_refused(shared: Service) -> None:
    headers = {"Content-Type": "application/json"}
    response = shared.http.post("/jobs", content=b" " * 1_000_000, headers=headers)
    assert_problem(response, 413, "file_too_large")


def test_a_spec_sent_first_is_refused_before_the_files_are_read(shared: Service) -> None:
    spec = {"architecture": files.ARCHITECTURE, **files.SPEC, "colour": "red"}
    response = shared.send_whole_job(model=b"not a model", spec=spec)
    assert_problem(response, 422, "unknown_field", "colour")


@pytest.mark.parametrize("missing", ["architecture", "method", "target"])
def test_what_is_missing_in_the_spec_part_is_named(shared: Service, missing: str) -> None:
    spec = {"architecture": files.ARCHITECTURE, **files.SPEC}
    del spec[missing]
    assert_problem(shared.send_whole_job(spec=spec), 422, "missing_field", missing)


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


def test_a_long_poll_answers_at_the_change_of_state(service: Service) -> None:
    job = service.send_job().json()
    answers: list[tuple[float, dict[str, Any]]] = []

    def wait() -> None:
        answer = service.http.get(job["links"]["self"], params={"wait": 30}).json()
        answers.append((time.monotonic(), answer))

    waiters = [threading.Thread(target=wait) for _ in range(8)]
    for waiter in waiters:
        waiter.start()
    wait_until(lambda: len(service.services.watcher._waiters) == 8)
    assert answers == []
    changed_at = time.monotonic()
    claimed(service)
    for waiter in waiters:
        waiter.join(timeout=10)
    assert [answer["state"] for _, answer in answers] == ["validating"] * 8
    assert max(at for at, _ in answers) - changed_at < 2


def test_all_who_wait_cost_one_query_a_tick(service: Service) -> None:
    links = [service.send_job().json()["links"]["self"] for _ in range(3)]
    statements: list[str] = []

    def record(*arguments: Any) -> None:
        statements.append(arguments[2])

    event.listen(service.database.engine, "before_cursor_execute", record)
    with ThreadPoolExecutor(24) as pool:
        polls = [pool.submit(service.http.get, links[n % 3], params={"wait": 1}) for n in range(24)]
    assert all(poll.result().json()["state"] == "queued" for poll in polls)
    polled = [statement for statement in statements if "IN (" in statement]
    # A tick is 0.2 s; each of the 24 asks twice more, at its start and at its end.
    assert 2 <= len(polled) <= 12


def test_who_waits_is_told_when_the_database_fails(service: Service) -> None:
    job = service.send_job().json()
    with ThreadPoolExecutor() as pool:
        poll = pool.submit(service.http.get, job["links"]["self"], params={"wait": 30})
        wait_until(lambda: service.services.watcher._waiters)
        with service.database.write() as session:
            session.execute(text("ALTER TABLE jobs RENAME TO elsewhere"))
        assert_problem(poll.result(timeout=10), 500, "internal_error")


def test_a_long_poll_ends_in_time_and_leaves_no_poller(service: Service) -> None:
    job = service.send_job().json()
    start = time.monotonic()
    answer = service.http.get(job["links"]["self"], params={"wait": 1}).json()
    assert answer["state"] == "queued"
    assert 0.9 < time.monotonic() - start < 5
    poller = service.services.watcher._poller
    assert poller is not None
    wait_until(poller.done)


def test_a_long_poll_of_a_final_job_answers_at_once(service: Service) -> None:
    job = service.send_job().json()
    service.http.post(job["links"]["cancel"])
    start = time.monotonic()
    answer = service.http.get(job["links"]["self"], params={"wait": 30}).json()
    assert answer["state"] == "cancelled"
    assert time.monotonic() - start < 5


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
    assert set(finished["headline"]) == set(HEADLINE_FIELDS)
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
    job = Job(spec={"accept": accept} if accept else {}, state=JobState.SUCCEEDED, **figures)
    found = acceptance(job)
    assert (found and [threshold.passed for threshold in found]) == passed
    job.state = JobState.RUNNING
    assert acceptance(job) is None


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
