"""Another tenant's things are not there: in no call, list, stream or artifact."""

import json
from typing import Any

import httpx
import pytest
from sqlalchemy import select, text

from jobstore import deliveries, products, transfers
from jobstore.objects import Stored, blob_key
from jobstore.tables import Base, Model, Owned
from tests.api import files
from tests.api.conftest import Service, assert_problem, begun_sweep, claimed, finished_job

# Of nobody in particular: what may be asked for, and whether the service is well.
COMMON = {
    # The operator's, by tenant: tests/api/test_sources.py.
    "/connections",
    "/healthz",
    "/readyz",
    "/metrics",
    "/architectures",
    "/architectures/{name}",
    "/methods",
    "/methods/{name}",
    "/attacks",
    "/attacks/{name}",
    "/schemas",
    "/schemas/{name}",
    "/signing-keys",
    "/.well-known/security.txt",
}
# Only an admin's key opens these, whosever the id is.
ADMIN = {
    *("/keys", "/keys/{key_id}", "/tenants", "/tenants/{name}", "/audit", "/audit/heads"),
    "/signing-keys/{signing_key_id}",
}
# Make something of the caller's own; what they refer to is tested below.
MAKES = {
    ("post", "/models"),
    ("post", "/datasets"),
    ("post", "/jobs"),
    ("post", "/sweeps"),
    ("post", "/webhooks"),
    ("options", "/uploads"),
    ("post", "/uploads"),
    ("post", "/uploads/direct"),
}
# What the calls of the tus protocol are not read without.
TUS = {
    "Tus-Resumable": "1.0.0",
    "Content-Type": "application/offset+octet-stream",
    "Upload-Offset": "0",
    "X-HTTP-Method-Override": "PATCH",
}


def test_every_call_of_the_document_answers_a_foreign_id_like_one_that_never_was(
    admin: Service,
) -> None:
    red, blue = admin.new_tenant("red"), admin.new_tenant("blue")
    told = told_webhook(red)
    job = finished_job(red, "red")
    real = {
        "job_id": job["id"],
        "model_id": job["model_id"],
        "dataset_id": job["dataset_id"],
        "upload_id": begin_upload(red),
        "sweep_id": begun_sweep(red)["id"],
        **told,
        "name": "model.atmc",
    }
    missing = {name: value[:-4] + "0000" for name, value in real.items()} | {"name": real["name"]}
    walked = set()
    for method, path in calls(red):
        if path in COMMON or (method, path) in MAKES:
            continue
        if path in ADMIN:
            assert_problem(blue.http.request(method, path, json={}), 403, "scope_missing")
        elif "{" not in path:
            assert red.http.request(method, path).json()["data"] != []
            assert blue.http.request(method, path).json()["data"] == []
        else:
            foreign = ask(blue, method, path.format(**real))
            never = ask(blue, method, path.format(**missing))
            assert_problem(foreign, 404, "not_found")
            assert without_ids(foreign, real) == without_ids(never, missing)
            walked.add((method, path))
    nouns = {path.split("/")[1] for _, path in walked}
    assert nouns == {"jobs", "models", "datasets", "uploads", "webhooks", "sweeps"}
    assert {("patch", "/uploads/{upload_id}"), ("get", "/jobs/{job_id}/events")} <= walked
    # What stands in no document: the same with HEAD, and the other form of the events.
    for path in (
        job["links"]["artifacts"] + "/model.atmc",
        job["links"]["events"],
        f"/uploads/{real['upload_id']}",
        f"/webhooks/{real['webhook_id']}/deliveries/{real['delivery_id']}",
    ):
        assert red.http.head(path, headers=TUS).status_code == 200, path
        head = blue.http.head(path, headers=TUS)
        assert (head.status_code, {"ETag", "Upload-Offset"} & {*head.headers}) == (404, set())
    stream = {"Accept": "text/event-stream"}
    assert red.http.get(job["links"]["events"], headers=stream).status_code == 200
    assert_problem(blue.http.get(job["links"]["events"], headers=stream), 404, "not_found")
    figures = blue.http.get("/metrics").text
    assert not [shown for shown in (*real.values(), '"red"') if shown in figures]
    # And to its owner everything still is as it was.
    for method, path in walked:
        if method == "get":
            assert ask(red, method, path.format(**real)).status_code == 200, path
    assert red.http.get(job["links"]["self"]).json() == job


def calls(service: Service) -> list[tuple[str, str]]:
    document = service.http.get("/openapi.json").json()
    return [(method, path) for path, methods in document["paths"].items() for method in methods]


def ask(service: Service, method: str, path: str) -> httpx.Response:
    if method == "patch" and not path.startswith("/uploads/"):
        return service.http.request(method, path, json={})
    headers = TUS if path.startswith("/uploads/") else {}
    return service.http.request(method, path, headers=headers, follow_redirects=True)


def told_webhook(service: Service) -> dict[str, str]:
    """Make a webhook, and a job that it is told of and that has failed to be told once."""
    made = service.http.post(
        "/webhooks", json={"url": "https://hooks.example.com", "events": ["job.cancelled"]}
    ).json()
    job = service.send_job().json()
    service.http.post(job["links"]["cancel"])
    with service.database.write() as session:
        (outgoing,) = deliveries.claim(session, 1)
    with service.database.write() as session:
        deliveries.record(session, outgoing, deliveries.Outcome(500, None, 0.1))
    return {"webhook_id": made["id"], "delivery_id": outgoing.id}


def begin_upload(service: Service) -> str:
    """Announce two bytes and send one; returns the upload's id."""
    headers = TUS | {"Upload-Length": "2"}
    response = service.http.post("/uploads", headers=headers, content=b"x")
    return response.headers["Location"].removeprefix("/uploads/")


def without_ids(response: httpx.Response, ids: dict[str, str]) -> str:
    shown = response.text
    for name, value in ids.items():
        shown = shown.replace(value, name)
    return shown


def test_a_job_cannot_be_made_on_anothers_files(admin: Service) -> None:
    red, blue = admin.new_tenant("red"), admin.new_tenant("blue")
    model, dataset = red.send_model().json(), red.send_dataset().json()
    ids = {"model_id": model["id"], "dataset_id": dataset["id"]}
    foreign = blue.http.post("/jobs", json=ids | files.SPEC)
    assert_problem(foreign, 422, "invalid_value", "model_id")
    own = blue.send_model().json()
    foreign = blue.http.post("/jobs", json=ids | {"model_id": own["id"]} | files.SPEC)
    assert_problem(foreign, 422, "invalid_value", "dataset_id")
    assert red.http.post("/jobs", json=ids | files.SPEC).status_code == 202


@pytest.mark.parametrize("noun", ["models", "datasets"])
def test_nothing_is_made_of_anothers_upload(admin: Service, noun: str) -> None:
    red, blue = admin.new_tenant("red"), admin.new_tenant("blue")
    content = files.safetensors_file() if noun == "models" else files.npz_file()
    headers = TUS | {"Upload-Length": str(len(content))}
    url = red.http.post("/uploads", headers=headers, content=content).headers["Location"]
    body = {"upload_id": url.removeprefix("/uploads/")}
    body |= {"architecture": files.ARCHITECTURE} if noun == "models" else {}
    assert_problem(blue.http.post(f"/{noun}", json=body), 422, "invalid_value", "upload_id")
    assert red.http.post(f"/{noun}", json=body).status_code == 201


def test_the_same_bytes_are_stored_once_a_tenant_and_never_across(admin: Service) -> None:
    red, blue = admin.new_tenant("red"), admin.new_tenant("blue")
    digests = {tenant.send_model().json()["sha256"] for tenant in (red, red, blue, admin)}
    (digest,) = digests
    owners = ("red", "blue", "default")
    assert sorted(admin.services.store.keys()) == sorted(blob_key(digest, who) for who in owners)


def test_an_idempotency_key_is_a_tenants_own(admin: Service) -> None:
    red, blue = admin.new_tenant("red"), admin.new_tenant("blue")
    first = red.send_whole_job(**{"Idempotency-Key": "k"})
    second = blue.send_whole_job(**{"Idempotency-Key": "k"})
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json()["id"] != second.json()["id"]
    assert "Idempotent-Replayed" not in second.headers


def test_a_cursor_leads_to_nothing_of_anothers(admin: Service) -> None:
    red, blue = admin.new_tenant("red"), admin.new_tenant("blue")
    for _ in range(3):
        red.send_job()
    cursor = red.http.get("/jobs", params={"limit": 1}).json()["next"]
    assert len(red.http.get("/jobs", params={"cursor": cursor}).json()["data"]) == 2
    assert blue.http.get("/jobs", params={"cursor": cursor}).json()["data"] == []


def made_product(service: Service) -> None:
    """Have the oldest queued job lay a product on the shelf."""
    attempt, stored = claimed(service), Stored("blobs/aa/a", "a" * 64, 1)
    with service.database.write() as session:
        products.publish(session, attempt, "b" * 64, "robust_training", stored, 1.0)


def lying_elsewhere(service: Service) -> None:
    """Have a file of the tenant's wait to be fetched."""
    with service.database.of("red").write() as session:
        model = session.scalars(select(Model).limit(1)).one()
        transfers.begin(session, model, {"uri": "s3://bucket/key"})


def test_every_row_that_a_tenant_causes_is_its_own(admin: Service) -> None:
    red = admin.new_tenant("red")
    finished_job(red, "red")
    red.send_whole_job(**{"Idempotency-Key": "k"})
    made_product(red)
    begin_upload(red)
    told_webhook(red)
    begun_sweep(red, labels={"a": "b"})
    lying_elsewhere(red)
    owned = [m.local_table.name for m in Base.registry.mappers if issubclass(m.class_, Owned)]
    assert len(owned) >= 6
    with admin.database.read() as session:
        for table in owned:
            owners = session.scalars(text(f"SELECT DISTINCT tenant_id FROM {table}")).all()
            assert owners == ["red"], table


@pytest.mark.parametrize("way", ["json", "multipart"])
def test_no_body_names_a_tenant(admin: Service, way: str) -> None:
    red = admin.new_tenant("red")
    spec: dict[str, Any] = {"architecture": files.ARCHITECTURE, "tenant": "blue", **files.SPEC}
    response = (
        red.http.post(
            "/jobs", content=json.dumps(spec), headers={"Content-Type": "application/json"}
        )
        if way == "json"
        else red.send_whole_job(spec=spec)
    )
    assert response.status_code == 422
