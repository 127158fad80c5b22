"""Webhooks over HTTP: made, shown, changed, deleted, and asked to be told again."""

from typing import Any

import httpx
import pytest
from sqlalchemy import select

from jobstore import deliveries
from jobstore.deliveries import Outcome
from jobstore.tables import Base
from jobstore.webhooks import MAX_WEBHOOKS
from tests.api import files
from tests.api.conftest import Service, assert_problem

URL = "https://hooks.example.com/atmc"


def make(service: Service, **changes: Any) -> dict[str, Any]:
    response = service.http.post("/webhooks", json={"url": URL} | changes)
    assert response.status_code == 201, response.text
    made: dict[str, Any] = response.json()
    assert response.headers["Location"] == made["links"]["self"]
    return made


def fail_once(service: Service) -> None:
    """Claim what is due and have it answered with 500."""
    with service.database.write() as session:
        due = deliveries.claim(session, 8)
    assert due
    for outgoing in due:
        with service.database.write() as session:
            deliveries.record(session, outgoing, Outcome(500, None, 0.25))


def test_a_webhook_s_secret_is_shown_once(service: Service) -> None:
    made = make(service)
    assert made["secret"].startswith("whsec_")
    assert made["events"] == ["job.cancelled", "job.failed", "job.succeeded"]
    shown = service.http.get(made["links"]["self"]).json()
    assert shown == {name: value for name, value in made.items() if name != "secret"}
    assert service.http.get("/webhooks").json()["data"] == [shown]


def test_a_webhook_is_changed_and_deleted(service: Service) -> None:
    link = make(service)["links"]["self"]
    changes = {"url": URL + "2", "events": ["job.running"]}
    assert service.http.patch(link, json=changes).json().items() >= changes.items()
    assert service.http.patch(link, json={}).json().items() >= changes.items()
    assert service.http.delete(link).status_code == 204
    assert_problem(service.http.get(link), 404, "not_found")
    assert service.http.get("/webhooks").json()["data"] == []


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({}, "missing_field", "url"),
        ({"url": "http://169.254.169.254/latest"}, "invalid_value", "url"),
        ({"url": "http://2130706433/"}, "invalid_value", "url"),
        ({"url": "http://localhost.:8000/"}, None, None),
        ({"url": "https://user@example.com/"}, "invalid_value", "url"),
        ({"url": URL, "events": []}, "invalid_value", "events"),
        ({"url": URL, "events": ["job.done"]}, "invalid_value", "events.0"),
        ({"url": URL, "events": 2 * ["job.failed"]}, "invalid_value", "events"),
        ({"url": URL, "secret": "mine"}, "unknown_field", "secret"),
    ],
)
def test_a_webhook_that_is_wrong_is_refused(
    service: Service, body: dict[str, Any], code: str | None, param: str | None
) -> None:
    response = service.http.post("/webhooks", json=body)
    if code is None:  # A name: judged by its address when it is called.
        assert response.status_code == 201
        return
    assert_problem(response, 422, code, param)
    link = make(service)["links"]["self"]
    if "url" in body:
        assert_problem(service.http.patch(link, json=body), 422, code, param)


def test_a_rotated_secret_is_another_and_shown_once(service: Service) -> None:
    made = make(service)
    rotate = f"{made['links']['self']}/rotate-secret"
    once = {"Idempotency-Key": "once"}
    rotated = service.http.post(rotate, headers=once)
    assert rotated.status_code == 200
    assert rotated.json()["secret"].startswith("whsec_")
    assert rotated.json()["secret"] != made["secret"]
    again = service.http.post(rotate, headers=once)
    assert made["id"] in assert_problem(again, 409, "secret_shown_once", "Idempotency-Key")
    assert service.http.post(rotate).json()["secret"] != rotated.json()["secret"]
    assert "secret" not in service.http.get(made["links"]["self"]).json()
    assert_problem(service.http.post("/webhooks/whk_0/rotate-secret"), 404, "not_found")


def test_what_is_kept_to_be_repeated_has_no_secret_in_it(service: Service) -> None:
    once = {"Idempotency-Key": "once"}
    body = {"url": URL}
    made = service.http.post("/webhooks", json=body, headers=once)
    assert made.headers["Cache-Control"] == "no-store"
    rotate = f"{made.json()['links']['self']}/rotate-secret"
    rotated = service.http.post(rotate, headers=once)
    ids = {
        "model_id": service.send_model().json()["id"],
        "dataset_id": service.send_dataset().json()["id"],
    }
    new_job = ids | files.SPEC | {"webhook": body}
    job = service.http.post("/jobs", json=new_job, headers=once)
    assert job.headers["Cache-Control"] == "no-store"
    secrets = [made.json()["secret"], rotated.json()["secret"], job.json()["webhook"]["secret"]]
    assert len(set(secrets)) == 3

    def repeated() -> list[httpx.Response]:
        answers = [
            service.http.post("/webhooks", json=body, headers=once),
            service.http.post(rotate, headers=once),
            service.http.post("/jobs", json=new_job, headers=once),
        ]
        assert not [secret for secret in secrets for each in answers if secret in each.text]
        return answers

    first, second, third = repeated()
    assert_problem(first, 409, "secret_shown_once", "Idempotency-Key")
    assert_problem(second, 409, "secret_shown_once", "Idempotency-Key")
    # A job is answered again, so that it is not lost with an answer.
    assert third.headers["Idempotent-Replayed"] == "true"
    told = job.json()
    assert third.json() == told | {"webhook": told["webhook"] | {"secret": None}}
    assert service.http.delete(made.json()["links"]["self"]).status_code == 204
    repeated()
    # And nothing of them lies in the database in clear, wherever it may be.
    with service.database.read() as session:
        for table in Base.metadata.tables.values():
            text = str(session.execute(select(table)).all())
            assert not [secret for secret in secrets if secret in text], table


def test_there_are_no_more_webhooks_than_may_be(service: Service) -> None:
    for _ in range(MAX_WEBHOOKS):
        make(service)
    response = service.http.post("/webhooks", json={"url": URL})
    assert_problem(response, 409, "too_many_webhooks")


def test_a_job_brings_its_own_webhook(service: Service) -> None:
    wanted = {"url": URL, "events": ["job.cancelled"]}
    for send in (service.send_job, lambda **more: whole(service, **more)):
        job = send(webhook=wanted).json()
        assert job["webhook"].items() >= (wanted | {"job_id": job["id"]}).items()
        assert job["webhook"]["secret"].startswith("whsec_")
        assert "webhook" not in service.http.get(job["links"]["self"]).json()
        service.http.post(job["links"]["cancel"])
        told = service.http.get(job["webhook"]["links"]["deliveries"]).json()["data"]
        assert [(each["type"], each["job_id"]) for each in told] == [("job.cancelled", job["id"])]
    assert service.http.get("/webhooks").json()["data"] == []
    response = service.send_job(webhook={"url": "http://10.0.0.1/"})
    assert_problem(response, 422, "invalid_value", "webhook.url")


def whole(service: Service, **more: Any) -> Any:
    return service.send_whole_job(spec={"architecture": files.ARCHITECTURE, **files.SPEC, **more})


def test_the_log_of_deliveries_pages_and_shows_each_try(service: Service) -> None:
    made = make(service, events=["job.queued"])
    ids = [service.send_job().json()["id"] for _ in range(3)]
    fail_once(service)
    link = made["links"]["deliveries"]
    first = service.http.get(link, params={"limit": 2}).json()
    assert first["has_more"]
    rest = service.http.get(link, params={"cursor": first["next"]}).json()
    assert (rest["has_more"], rest["next"]) == (False, None)
    listed = first["data"] + rest["data"]
    assert [each["job_id"] for each in listed] == ids[::-1]
    tried = listed[-1]
    assert (tried["state"], tried["attempts"]) == ("waiting", 1)
    shown = service.http.get(tried["links"]["self"]).json()
    (attempt,) = shown["log"]
    assert (attempt["number"], attempt["status"], attempt["seconds"]) == (1, 500, 0.25)
    assert {name: shown[name] for name in tried} == tried
    assert_problem(service.http.get(link, params={"cursor": "AA=="}), 422, "invalid_value")


def test_a_delivery_is_asked_for_again_but_not_of_one_that_is_off(service: Service) -> None:
    made = make(service, events=["job.queued"])
    service.send_job()
    with service.database.write() as session:
        (outgoing,) = deliveries.claim(session, 8)
    with service.database.write() as session:
        deliveries.record(session, outgoing, Outcome(410, None, 0.1))
    (delivery,) = service.http.get(made["links"]["deliveries"]).json()["data"]
    assert (delivery["state"], delivery["next_attempt_at"]) == ("given_up", None)
    shown = service.http.get(made["links"]["self"]).json()
    assert not shown["active"]
    assert "410" in shown["disabled_reason"]
    again = delivery["links"]["redeliver"]
    assert_problem(service.http.post(again), 409, "webhook_disabled")
    assert service.http.patch(made["links"]["self"], json={"active": True}).json()["active"]
    response = service.http.post(again)
    assert (response.status_code, response.json()["state"]) == (202, "waiting")


def test_what_is_not_there_is_not_found(service: Service) -> None:
    made, other = make(service, events=["job.queued"]), make(service)
    service.send_job()
    (delivery,) = service.http.get(made["links"]["deliveries"]).json()["data"]
    for link in (
        "/webhooks/whk_0",
        "/webhooks/whk_0/deliveries",
        f"{other['links']['deliveries']}/{delivery['id']}",
    ):
        assert_problem(service.http.get(link), 404, "not_found")
