"""A sweep's trials become jobs in their turn, and it ends with the last; the keeper's part."""

import threading
from collections.abc import Callable
from typing import Any

from jobstore import leases
from jobstore.events import EventType, NewEvent
from jobstore.jobs import request_cancel
from jobstore.states import JobState
from jobstore.wakeups import pending
from jobstore.workers import queue_of
from tests.api.conftest import HEADLINE, Service, claimed, conduct
from tests.api.test_sweeps import BASE, GRID, begun

ONE_CHAIN: dict[str, Any] = {"densities": [0.05, 0.2, 0.1], "bits": [4]}


def shown(service: Service, sweep: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = service.http.get(sweep["links"]["self"]).json()
    return answer


def states(service: Service, sweep: dict[str, Any]) -> list[str]:
    return [trial["state"] for trial in shown(service, sweep)["trials"]]


def enter(service: Service, attempt: leases.Attempt, stage: str) -> None:
    event = NewEvent(EventType.STAGE, {"stage": stage, "status": "started"})
    with service.database.write() as session:
        leases.report(session, attempt, [event])


def finish(service: Service, attempt: leases.Attempt, **figures: Any) -> None:
    """Have a job succeed with these figures, and with the file that another may start from."""
    model = leases.NewArtifact("model.atmc", "application/octet-stream", "a" * 64, 10)
    with service.database.write() as session:
        leases.finish(
            session,
            attempt,
            JobState.SUCCEEDED,
            headline=HEADLINE | figures,
            artifacts=[model],
        )


def fail(service: Service, attempt: leases.Attempt) -> None:
    with service.database.write() as session:
        error = leases.JobError("out_of_luck", "it was not to be")
        leases.finish(session, attempt, JobState.FAILED, error=error)


def test_the_first_makes_what_the_others_share_and_then_they_begin(service: Service) -> None:
    sweep = begun(service, grid=GRID, from_denser=False, max_parallel=3, name="four")
    before = pending(service.services.celery, queue_of(None, 0))
    for _ in range(2):
        conduct(service)
    assert states(service, sweep) == ["queued", "planned", "planned", "planned"]
    assert pending(service.services.celery, queue_of(None, 0)) == before + 1
    (job,) = service.http.get("/jobs", params={"sweep_id": sweep["id"]}).json()["data"]
    assert job["sweep_id"] == sweep["id"]
    assert job["name"] == "four: density 0.1, bits 8"
    assert job["spec"] == BASE | {"target": {"density": 0.1, "bits": 8}}
    first = claimed(service)
    enter(service, first, "robust_training")
    conduct(service)
    assert states(service, sweep)[1:] == ["planned"] * 3
    enter(service, first, "compressing")
    conduct(service)
    assert states(service, sweep) == ["running", "queued", "queued", "planned"]
    assert shown(service, sweep)["started_at"] is not None


def test_a_trial_begins_from_its_denser_neighbour_once_that_has_succeeded(service: Service) -> None:
    sweep = begun(service, grid=ONE_CHAIN)
    assert [trial["denser"] for trial in sweep["trials"]] == [2, None, 1]
    started_from = []
    for _ in range(3):
        conduct(service)
        attempt = claimed(service)
        started_from.append(service.http.get(f"/jobs/{attempt.job_id}").json()["start_from"])
        enter(service, attempt, "compressing")
        conduct(service)
        with service.database.write() as session:
            assert leases.claim(session, "other", lease_s=60) is None
        finish(service, attempt)
    jobs = [trial["job_id"] for trial in shown(service, sweep)["trials"]]
    assert started_from == [None, jobs[1], jobs[2]]


def test_one_whose_neighbour_came_to_nothing_starts_from_the_next_denser(service: Service) -> None:
    sweep = begun(service, grid=ONE_CHAIN)
    conduct(service)
    finish(service, claimed(service))
    conduct(service)
    fail(service, claimed(service))
    conduct(service)
    last = service.http.get(f"/jobs/{claimed(service).job_id}").json()
    assert last["start_from"] == shown(service, sweep)["trials"][1]["job_id"]


def test_it_ends_with_its_last_trial_with_a_front_and_a_best(service: Service) -> None:
    service.http.post("/webhooks", json={"url": "https://a.example", "events": ["sweep.succeeded"]})
    sweep = begun(service, grid=GRID, from_denser=False, webhook={"url": "https://b.example"})
    figures = [(0.8, 400), (0.8, 300), (0.7, 350), (0.6, 200)]
    for accuracy, size in figures:
        conduct(service)
        finish(service, claimed(service), robust_accuracy_after=accuracy, file_bytes=size)
    conduct(service)
    conduct(service)
    ended = shown(service, sweep)
    assert (ended["state"], ended["message"]) == ("succeeded", None)
    assert (ended["front"], ended["best"], ended["progress"]) == ([1, 3], 1, 1.0)
    assert ended["counts"]["succeeded"] == 4
    events = service.http.get(sweep["links"]["events"]).json()["data"]
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
    assert [(e["type"], e["state"]) for e in (events[0], events[-1])] == [
        ("sweep", "running"),
        ("sweep", "succeeded"),
    ]
    told = [e for e in events if e["type"] == "trial" and e["index"] == 0]
    assert [e["state"] for e in told] == ["queued", "succeeded"]
    (hook,) = service.http.get("/webhooks").json()["data"]
    (delivery,) = service.http.get(hook["links"]["deliveries"]).json()["data"]
    assert (delivery["type"], delivery["sweep_id"]) == ("sweep.succeeded", sweep["id"])
    own = service.http.get(f"/webhooks/{sweep['webhook']['id']}/deliveries").json()["data"]
    assert [each["type"] for each in own] == ["sweep.succeeded"]


def test_a_sweep_waits_at_the_quota_and_goes_on_later(service: Service) -> None:
    service.settings.max_queued_jobs = 1
    sweep = begun(service, grid=GRID, from_denser=False)
    conduct(service)
    first = claimed(service)
    enter(service, first, "compressing")
    for _ in range(2):
        conduct(service)
        assert states(service, sweep) == ["running", "queued", "planned", "planned"]
    claimed(service)
    conduct(service)
    assert states(service, sweep)[2:] == ["queued", "planned"]


def test_a_cancelled_sweep_ends_once_its_trials_have(service: Service) -> None:
    sweep = begun(service, grid=GRID, from_denser=False)
    conduct(service)
    attempt = claimed(service)
    assert service.http.post(sweep["links"]["cancel"]).status_code == 202
    conduct(service)
    running = shown(service, sweep)
    assert (running["state"], states(service, sweep)) == (
        "running",
        ["validating", *["skipped"] * 3],
    )
    assert service.http.get(f"/jobs/{attempt.job_id}").json()["cancel_requested_at"] is not None
    with service.database.write() as session:
        leases.finish(session, attempt, JobState.CANCELLED)
    conduct(service)
    ended = shown(service, sweep)
    assert (ended["state"], ended["trials"][0]["state"]) == ("cancelled", "cancelled")
    assert ended["trials"][0]["reason"] == "The sweep was cancelled."
    assert service.http.post(sweep["links"]["cancel"]).status_code == 200


def test_past_its_time_limit_it_ends_with_what_there_is(service: Service) -> None:
    sweep = begun(service, grid=GRID, from_denser=False, time_limit_s=0.001)
    conduct(service)
    finish(service, claimed(service))
    for _ in range(2):
        conduct(service)
    ended = shown(service, sweep)
    assert ended["state"] == "succeeded"
    assert ended["message"].startswith("The sweep's time limit of 0.001 s was reached.")
    assert states(service, sweep) == ["succeeded", *["skipped"] * 3]
    assert ended["trials"][3]["reason"] == "The sweep's time limit of 0.001 s was reached."


def test_one_whose_trials_all_failed_has_failed(service: Service) -> None:
    sweep = begun(service, grid={"densities": [0.1, 0.05], "bits": [4]})
    for _ in range(2):
        conduct(service)
        fail(service, claimed(service))
    conduct(service)
    ended = shown(service, sweep)
    assert (ended["state"], ended["message"]) == ("failed", "2 of 2 trials did not succeed.")
    assert ended["trials"][0]["error"]["code"] == "out_of_luck"


def test_a_trial_can_be_retried_while_and_after_its_sweep_runs(service: Service) -> None:
    sweep = begun(service, grid={"densities": [0.1], "bits": [4]})
    conduct(service)
    attempt = claimed(service)
    fail(service, attempt)
    assert service.http.post(f"/jobs/{attempt.job_id}/retry").status_code == 202
    conduct(service)
    assert shown(service, sweep)["state"] == "running"
    fail(service, claimed(service))
    conduct(service)
    assert shown(service, sweep)["state"] == "failed"
    service.http.post(f"/jobs/{attempt.job_id}/retry")
    conduct(service)
    later = shown(service, sweep)
    assert (later["state"], later["trials"][0]["state"]) == ("failed", "queued")
    assert service.http.delete(sweep["links"]["self"]).status_code == 409
    finish(service, claimed(service))
    assert shown(service, sweep)["best"] == 0


def test_its_end_deletes_all_its_trials_and_nothing_else(service: Service) -> None:
    other = service.send_job().json()
    sweep = begun(
        service, grid={"densities": [0.1, 0.05], "bits": [4]}, webhook={"url": "https://b.example"}
    )
    with service.database.write() as session:
        request_cancel(session, other["id"])
    conduct(service)
    finish(service, claimed(service))
    service.http.post(sweep["links"]["cancel"])
    conduct(service)
    jobs = [trial["job_id"] for trial in shown(service, sweep)["trials"] if trial["job_id"]]
    assert len(jobs) == 1
    assert service.http.delete(sweep["links"]["self"]).status_code == 204
    assert service.http.get(sweep["links"]["self"]).status_code == 404
    assert service.http.get(f"/jobs/{jobs[0]}").status_code == 404
    assert service.http.get(other["links"]["self"]).status_code == 200
    for noun in ("model", "dataset"):
        path = f"/{noun}s/{sweep[f'{noun}_id']}"
        assert service.http.delete(path).status_code == 204


def test_a_trial_s_job_can_be_deleted_and_the_sweep_says_so(service: Service) -> None:
    sweep = begun(service, grid={"densities": [0.1, 0.05], "bits": [4]})
    conduct(service)
    attempt = claimed(service)
    finish(service, attempt)
    assert service.http.delete(f"/jobs/{attempt.job_id}").status_code == 204
    conduct(service)
    first, second = shown(service, sweep)["trials"]
    assert (first["state"], first["job_id"], first["reason"]) == (
        "skipped",
        None,
        "Its job was deleted.",
    )
    assert second["state"] == "queued"


def test_several_keepers_make_each_trial_once(service: Service) -> None:
    sweep = begun(
        service,
        grid={"seeds": list(range(12))},
        max_parallel=64,
        spec=BASE | {"target": {"density": 0.1, "bits": 4}},
    )
    at_once(8, lambda: conduct(service))
    jobs = service.http.get("/jobs", params={"sweep_id": sweep["id"], "limit": 100}).json()["data"]
    assert sorted(job["spec"]["seed"] for job in jobs) == list(range(12))


def at_once(count: int, act: Callable[[], None]) -> None:
    threads = [threading.Thread(target=act) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
