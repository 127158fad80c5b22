"""Sweeps: begun, refused, listed, followed, cancelled and deleted, before any trial is a job."""

from typing import Any

import httpx
import pytest

from tests.api.conftest import Service, assert_problem

BASE: dict[str, Any] = {"method": "atmc", "threat": {"norm": "linf", "epsilon": 0.1}}
GRID: dict[str, Any] = {"densities": [0.1, 0.05], "bits": [8, 4]}


def ids(service: Service) -> dict[str, str]:
    return {
        "model_id": service.send_model().json()["id"],
        "dataset_id": service.send_dataset().json()["id"],
    }


def send(service: Service, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    whole = {"spec": BASE} | body
    if "model_id" not in whole:
        whole |= ids(service)
    return service.http.post("/sweeps", json=whole, headers=headers)


def begun(service: Service, **body: Any) -> dict[str, Any]:
    response = send(service, **({"grid": GRID} | body))
    assert response.status_code == 202, response.text
    made: dict[str, Any] = response.json()
    assert response.headers["Location"] == made["links"]["self"] == f"/sweeps/{made['id']}"
    return made


def test_a_grid_becomes_a_trial_for_each_combination(service: Service) -> None:
    made = begun(service, name="four", max_parallel=2)
    assert made["id"].startswith("sweep_")
    assert (made["name"], made["state"], made["max_parallel"]) == ("four", "running", 2)
    assert (made["spec"], made["grid"], made["specs"], made["goal"]) == (BASE, GRID, None, None)
    assert made["counts"]["planned"] == 4
    assert [trial["point"] for trial in made["trials"]] == [
        {"target.density": density, "target.bits": bits}
        for density in (0.1, 0.05)
        for bits in (8, 4)
    ]
    assert [trial["denser"] for trial in made["trials"]] == [None, None, 0, 1]
    assert {trial["state"] for trial in made["trials"]} == {"planned"}
    again = service.http.get(made["links"]["self"]).json()
    assert again == {key: value for key, value in made.items() if key != "webhook"}
    assert service.http.get("/jobs", params={"sweep_id": made["id"]}).json()["data"] == []


def test_specs_are_laid_over_the_base(service: Service) -> None:
    base = BASE | {"target": {"density": 0.1, "bits": 4}}
    partials = [{"seed": 1}, {"target": {"bits": 2}, "training": {"rho": 0.01}}]
    made = begun(service, spec=base, grid=None, specs=partials, from_denser=False)
    assert [trial["point"] for trial in made["trials"]] == [
        {"seed": 1},
        {"target.bits": 2, "training.rho": 0.01},
    ]
    assert made["from_denser"] is False


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"grid": {"densities": [0.1], "bits": [4, 9]}}, "invalid_value", "grid.bits[1]"),
        ({"grid": {"densities": [0.1, "x"], "bits": [4]}}, "invalid_value", "grid.densities[1]"),
        ({"grid": {"densities": [1e-9], "bits": [4]}}, "k_out_of_range", "grid.densities[0]"),
        ({"grid": {"densities": [0.1]}}, "missing_field", "spec.target.bits"),
        ({"grid": GRID | {"methods": ["magic"]}}, "unknown_method", "grid.methods[0]"),
        (
            {"grid": GRID | {"fields": {"training.rho": [1, -1]}}},
            "invalid_value",
            "grid.fields.training.rho[1]",
        ),
        (
            {"grid": GRID | {"fields": {"training.roh": [1]}}},
            "unknown_field",
            "grid.fields.training.roh[0]",
        ),
        (
            {"grid": GRID | {"fields": {"target.bits": [1]}}},
            "invalid_value",
            "grid.fields.target.bits",
        ),
        ({"grid": GRID | {"nominal_ratios": [0.1]}}, "invalid_value", "grid.nominal_ratios"),
        ({"grid": {"densities": [0.1, 0.1], "bits": [4]}}, "invalid_value", "grid.densities[1]"),
        ({"grid": {}}, "invalid_value", "grid"),
        ({"grid": {"densities": []}}, "invalid_value", "grid.densities"),
        ({"grid": {"colours": [1]}}, "unknown_field", "grid.colours"),
        ({"grid": GRID, "specs": [{}]}, "invalid_value", "specs"),
        ({}, "missing_field", "grid"),
        ({"grid": GRID, "trials": 4}, "invalid_value", "trials"),
        ({"grid": GRID, "max_trials": 3}, "too_many_trials", "grid"),
        ({"grid": {"seeds": list(range(20)), "bits": list(range(20))}}, "too_many_trials", "grid"),
        (
            {
                "specs": [
                    {"target": {"density": 0.1, "bits": 4}},
                    {"target": {"density": 0.2, "bits": 9}},
                ]
            },
            "invalid_value",
            "specs[1].target.bits",
        ),
        ({"specs": [{"seed": 1}]}, "missing_field", "spec.target"),
        ({"grid": GRID, "spec": BASE | {"name": "x"}}, "unknown_field", "spec.name"),
        ({"grid": GRID, "model_id": "mdl_0", "dataset_id": "dst_0"}, "invalid_value", "model_id"),
        ({"grid": GRID, "colour": 1}, "unknown_field", "colour"),
    ],
)
def test_what_cannot_be_tried_is_refused_by_its_place_and_nothing_is_made(
    shared: Service, body: dict[str, Any], code: str, param: str
) -> None:
    assert_problem(send(shared, **body), 422, code, param)
    assert shared.http.get("/sweeps").json()["data"] == []


def test_the_same_request_under_the_same_key_makes_one(service: Service) -> None:
    body, key = {"grid": GRID} | ids(service), {"Idempotency-Key": "one"}
    first, again = send(service, key, **body), send(service, key, **body)
    assert (first.status_code, again.json()) == (202, first.json())
    assert again.headers["Idempotent-Replayed"] == "true"
    assert len(service.http.get("/sweeps").json()["data"]) == 1
    assert_problem(send(service, key, **body, name="two"), 422, "idempotency_conflict")


def test_lists_page_through_all_newest_first_without_trials(service: Service) -> None:
    files_of = ids(service)
    made = [begun(service, **files_of)["id"] for _ in range(3)]
    service.http.post(f"/sweeps/{made[1]}/cancel")
    page = service.http.get("/sweeps", params={"limit": 2}).json()
    assert [sweep["id"] for sweep in page["data"]] == made[:0:-1]
    assert page["data"][0]["counts"]["planned"] == 4
    assert "trials" not in page["data"][0]
    rest = service.http.get("/sweeps", params={"cursor": page["next"]}).json()
    assert ([sweep["id"] for sweep in rest["data"]], rest["has_more"]) == ([made[0]], False)
    running = service.http.get("/sweeps", params={"state": "running"}).json()["data"]
    assert len(running) == 3  # A sweep runs until the keeper ends it.
    assert_problem(service.http.get("/sweeps?cursor=am9iXzA="), 422, "invalid_value", "cursor")


def test_events_are_listed(service: Service) -> None:
    made = begun(service)
    events = service.http.get(made["links"]["events"]).json()["data"]
    assert [(e["seq"], e["type"], e["state"]) for e in events] == [(1, "sweep", "running")]


def test_a_cancel_skips_what_is_planned_and_a_running_sweep_is_not_deleted(
    service: Service,
) -> None:
    made = begun(service)
    detail = assert_problem(service.http.delete(made["links"]["self"]), 409, "not_ended")
    assert f"/sweeps/{made['id']}/cancel" in detail
    assert_problem(service.http.delete(f"/models/{made['model_id']}"), 409, "in_use")
    cancelled = service.http.post(made["links"]["cancel"])
    assert cancelled.status_code == 202
    assert cancelled.json()["counts"]["skipped"] == 4
    assert cancelled.json()["cancel_requested_at"] is not None
    told = service.http.get(made["links"]["events"]).json()["data"][1:]
    assert [(event["index"], event["state"]) for event in told] == [
        (i, "skipped") for i in range(4)
    ]


def test_an_unknown_sweep_is_not_found(shared: Service) -> None:
    for path in ("", "/events"):
        assert "GET /sweeps lists" in assert_problem(
            shared.http.get(f"/sweeps/sweep_0{path}"), 404, "not_found"
        )
    assert_problem(shared.http.post("/sweeps/sweep_0/cancel"), 404, "not_found")
    assert_problem(shared.http.delete("/sweeps/sweep_0"), 404, "not_found")


def test_a_sweep_s_own_webhook_is_shown_with_its_secret_once(service: Service) -> None:
    key = {"Idempotency-Key": "hooked"}
    body = {"grid": GRID, "webhook": {"url": "https://hooks.example.com/a"}} | ids(service)
    first, again = send(service, key, **body).json(), send(service, key, **body).json()
    assert first["webhook"]["events"] == ["sweep.cancelled", "sweep.failed", "sweep.succeeded"]
    assert (first["webhook"]["sweep_id"], first["webhook"]["job_id"]) == (first["id"], None)
    assert first["webhook"]["secret"].startswith("whsec_")
    assert again["webhook"]["secret"] is None
    assert service.http.get("/webhooks").json()["data"] == []
    refused = body | {"webhook": {"url": "https://a.example", "events": ["job.failed"]}}
    assert_problem(send(service, **refused), 422, "invalid_value", "webhook.events.0")


def test_a_tenant_has_as_many_sweeps_under_way_as_jobs_may_wait(service: Service) -> None:
    service.settings.max_queued_jobs = 1
    body = ids(service)
    begun(service, **body)
    detail = assert_problem(send(service, grid=GRID, **body), 429, "quota_exceeded")
    assert "running-sweeps is 1" in detail
