"""Every change that a caller makes is in the audit log, with who and whence; so are refusals."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import func, select, update

from api import refusals
from atmc_client.audit import Broken, verify
from jobstore import audit
from jobstore.tables import AuditRecord, Key
from tests.api.conftest import (
    ADMIN_KEY,
    Service,
    assert_problem,
    begun_sweep,
    conduct,
    files,
    finished_job,
    running,
    settings_in,
)
from tests.api.test_tenants import TUS, begin_upload, calls, told_webhook

# What each call that changes something leaves. A call that is added needs a line here.
ACTIONS = {
    ("post", "/jobs"): "job.create",
    ("post", "/jobs/{job_id}/cancel"): "job.cancel",
    ("post", "/jobs/{job_id}/retry"): "job.retry",
    ("patch", "/jobs/{job_id}"): "job.change",
    ("delete", "/jobs/{job_id}"): "job.delete",
    ("post", "/sweeps"): "sweep.create",
    ("post", "/sweeps/{sweep_id}/cancel"): "sweep.cancel",
    ("delete", "/sweeps/{sweep_id}"): "sweep.delete",
    ("post", "/models"): "model.create",
    ("patch", "/models/{model_id}"): "model.change",
    ("delete", "/models/{model_id}"): "model.delete",
    ("post", "/datasets"): "dataset.create",
    ("patch", "/datasets/{dataset_id}"): "dataset.change",
    ("delete", "/datasets/{dataset_id}"): "dataset.delete",
    ("post", "/uploads"): "upload.create",
    ("delete", "/uploads/{upload_id}"): "upload.delete",
    ("post", "/webhooks"): "webhook.create",
    ("patch", "/webhooks/{webhook_id}"): "webhook.change",
    ("delete", "/webhooks/{webhook_id}"): "webhook.delete",
    ("post", "/webhooks/{webhook_id}/rotate-secret"): "webhook.rotate_secret",
    ("post", "/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver"): "webhook.redeliver",
    ("post", "/keys"): "key.create",
    ("patch", "/keys/{key_id}"): "key.change",
    ("delete", "/keys/{key_id}"): "key.revoke",
    ("patch", "/tenants/{name}"): "tenant.change",
    ("delete", "/tenants/{name}"): "tenant.erase",
}
# Pieces of an upload are counted where it is used; a direct one takes a store of another kind.
LEFT_OUT = {
    ("post", "/uploads/{upload_id}"),
    ("patch", "/uploads/{upload_id}"),
    ("options", "/uploads"),
    ("post", "/uploads/direct"),
    # Of no tenant: a list that workers write.
    ("delete", "/signing-keys/{signing_key_id}"),
}


def records(service: Service, **which: Any) -> list[dict[str, Any]]:
    answer = service.http.get("/audit", params={"limit": 1000, **which})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def export(service: Service, **which: str) -> list[str]:
    answer = service.http.get("/audit", params={"format": "jsonl", **which})
    assert answer.headers["Content-Type"].startswith("application/jsonl")
    return answer.text.splitlines()


def test_every_call_that_changes_something_leaves_a_record(admin: Service) -> None:
    red = admin.new_tenant("red")
    told = told_webhook(red)
    webhook, delivery = (f"/webhooks/{told['webhook_id']}", told["delivery_id"])
    red.http.post(f"{webhook}/deliveries/{delivery}/redeliver")
    red.http.patch(webhook, json={"events": ["job.failed"]})
    red.http.post(f"{webhook}/rotate-secret")
    red.http.delete(webhook)
    (job,) = red.http.get("/jobs").json()["data"]
    red.http.post(f"{job['links']['self']}/retry")
    red.http.post(f"{job['links']['self']}/cancel")
    for link in ("self", "model", "dataset"):
        red.http.patch(job["links"][link], json={"name": "another"})
    red.http.delete(job["links"]["self"])
    sweep = begun_sweep(red)
    red.http.post(sweep["links"]["cancel"])
    conduct(red)
    red.http.delete(sweep["links"]["self"])
    red.http.delete(f"/models/{job['model_id']}")
    red.http.delete(f"/datasets/{job['dataset_id']}")
    red.http.delete(f"/uploads/{begin_upload(red)}", headers=TUS)
    key = admin.http.post("/keys", json={"tenant": "red", "scopes": ["jobs:read"]}).json()
    admin.http.patch(f"/keys/{key['id']}", json={"addresses": ["192.0.2.1"]})
    admin.http.delete(f"/keys/{key['id']}")
    admin.http.patch("/tenants/red", json={"max_running_jobs": 2})
    admin.http.delete("/tenants/red")
    left = {record["action"] for record in records(admin)}
    changing = {call for call in calls(red) if call[0] != "get"} - LEFT_OUT
    assert changing == set(ACTIONS)
    assert left == set(ACTIONS.values())
    assert {record["tenant"] for record in records(admin)} == {"red"}
    assert {record["outcome"] for record in records(admin)} == {"done"}


def test_a_record_says_who_with_which_key_from_where(admin: Service) -> None:
    made = admin.http.post("/keys", json={"tenant": "red", "scopes": ["jobs:write"]}).json()
    red = admin.keyed(made["key"])
    answer = red.http.post(
        "/models",
        files={"file": ("m.safetensors", files.safetensors_file())},
        data={"architecture": files.ARCHITECTURE},
        # Nobody is believed who names another address.
        headers={"X-Request-Id": "of-mine-1", "X-Forwarded-For": "203.0.113.9"},
    )
    newest, first = records(admin)
    assert newest["actor"] == made["id"]
    assert (newest["address"], newest["request"]) == ("127.0.0.1", "of-mine-1")
    assert (newest["action"], newest["object"]) == ("model.create", answer.json()["id"])
    assert newest["detail"] == {"sha256": answer.json()["sha256"]}
    assert (first["actor"], first["action"]) == ("operator", "key.create")
    assert (first["object"], first["detail"]) == (made["id"], {"scopes": ["jobs:write"]})
    shown = json.dumps(records(admin))
    assert made["key"] not in shown
    assert ADMIN_KEY not in shown


def test_a_job_with_its_files_leaves_three_and_a_repeated_request_none(admin: Service) -> None:
    red = admin.new_tenant("red")
    for _ in range(2):
        assert red.send_whole_job(**{"Idempotency-Key": "once"}).status_code == 202
    assert red.send_whole_job(spec={"nothing": 1}).status_code == 422
    found = [record["action"] for record in records(admin, action="job")]
    assert found == ["job.create"]
    assert len(records(admin, tenant="red")) == 4


def test_a_change_that_fails_leaves_no_record_and_no_record_no_change(
    admin: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    red = admin.new_tenant("red")
    model = red.send_model().json()
    ids = {"model_id": model["id"], "dataset_id": red.send_dataset().json()["id"]}

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("the log cannot be written")

    with monkeypatch.context() as patch:
        patch.setattr(audit, "record", fails)
        # Each on a connection of its own: the server closes it after a failure.
        for method, path in (("DELETE", f"/models/{model['id']}"), ("POST", "/jobs")):
            url, body = f"{red.http.base_url}{path}", ids | files.SPEC
            failed = httpx.request(method, url, json=body, headers=red.http.headers)
            assert failed.status_code == 500
    assert red.http.get(f"/models/{model['id']}").status_code == 200
    assert red.http.get("/jobs").json()["data"] == []
    # In use: refused after the transaction has begun.
    assert red.http.post("/jobs", json=ids | files.SPEC).status_code == 202
    assert red.http.delete(f"/models/{model['id']}").status_code == 409
    assert not records(admin, action="model.delete")


def test_a_tenant_sees_its_own_records_and_no_others(admin: Service) -> None:
    red, blue = admin.new_tenant("red"), admin.new_tenant("blue")
    red.send_model()
    blue.send_dataset()
    auditor = admin.new_tenant("red", "audit:read")
    assert {record["tenant"] for record in records(auditor)} == {"red"}
    assert {record["tenant"] for record in records(admin)} == {"red", "blue"}
    assert_problem(auditor.http.get("/audit?tenant=blue"), 403, "tenant_forbidden", "tenant")
    assert records(auditor, tenant="red") == records(auditor)
    for lines in (export(auditor), export(admin, tenant="red")):
        assert set(verify(lines)) == {"red"}
    assert [head["tenant"] for head in auditor.http.get("/audit/heads").json()["data"]] == ["red"]
    assert_problem(auditor.http.get("/jobs"), 403, "scope_missing")
    for path in ("/audit", "/audit/heads"):
        assert_problem(red.http.get(path), 403, "scope_missing")
    # Another's record is no cursor into one's own.
    cursor = admin.http.get("/audit?limit=1").json()["next"]
    page = auditor.http.get("/audit", params={"cursor": cursor}).json()["data"]
    assert {record["tenant"] for record in page} <= {"red"}


def test_the_log_is_exported_whole_and_holds(admin: Service) -> None:
    red = admin.new_tenant("red")
    for _ in range(3):
        red.send_model()
    lines = export(admin)
    kept = admin.http.get("/audit/heads").json()["data"]
    assert verify(lines, kept)["red"].seq == 4
    for form in ("application/jsonl", "application/x-ndjson"):
        asked = admin.http.get("/audit", headers={"Accept": form})
        assert asked.text.splitlines() == lines
    # A part says where it stands no more, but each line is itself.
    part = export(admin, action="model.create")
    assert len(part) == 3
    verify(part, part=True)
    with pytest.raises(Broken, match="part"):
        verify(part)
    pages, cursor = [], None
    while True:
        query = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = admin.http.get("/audit", params=query).json()
        pages += page["data"]
        cursor = page["next"]
        if not page["has_more"]:
            break
    assert pages[::-1] == [json.loads(line) for line in lines if '"head"' not in line]


def test_a_broken_chain_is_found_out(admin: Service) -> None:
    red = admin.new_tenant("red")
    for _ in range(3):
        red.send_model()
    kept = admin.http.get("/audit/heads").json()["data"]
    verify(export(admin), kept)
    with admin.database.engine.begin() as connection:
        which = AuditRecord.seq == 2
        connection.execute(update(AuditRecord).where(which).values(address="192.0.2.1"))
    with pytest.raises(Broken, match=r"line 2 \(red, 2\) was changed"):
        verify(export(admin), kept)


NO_QUERIES: tuple[dict[str, Any], ...] = (
    {"since": "yesterday"},
    {"since": "2030-01-01T00:00:00"},
    {"until": "9999-12-31T23:59:59-23:59"},
    {"limit": 0},
    {"limit": 1001},
    {"outcome": "maybe"},
    {"action": "%"},
    {"tenant": "../red"},
    {"cursor": "x"},
    {"format": "xml"},
    {"actor": "\x00"},
)


def test_a_query_that_cannot_be_meant_is_refused(admin: Service) -> None:
    for query in NO_QUERIES:
        refused = admin.http.get("/audit", params=query)
        assert_problem(refused, 422, "invalid_value", *query)
    assert_problem(admin.http.get("/audit?what=1"), 422, "unknown_field", "what")


def test_refused_calls_of_admins_are_in_the_log(
    admin: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = admin.http.post("/keys", json={"tenant": "red", "scopes": ["jobs:write"]}).json()
    red = admin.keyed(made["key"])
    assert_problem(red.http.delete("/keys/key_of_another"), 403, "scope_missing")
    assert_problem(red.http.patch("/tenants/blue", json={}), 403, "scope_missing")
    assert_problem(red.http.get("/audit"), 403, "scope_missing")
    assert_problem(admin.http.delete("/keys/key_0"), 404, "not_found")
    with httpx.Client(base_url=admin.http.base_url) as nobody:
        assert_problem(nobody.post("/keys", json={}), 401, "key_required")
        wrong = {"Authorization": "Bearer atmc_wrong"}
        for _ in range(20):
            assert_problem(nobody.get("/keys", headers=wrong), 401, "key_invalid")
    # Other calls' refusals are in the log of the process, as every request is.
    assert_problem(red.http.get("/jobs"), 403, "scope_missing")
    found = {
        (each["tenant"], each["actor"], each["action"], each["object"], each["detail"]["code"])
        for each in records(admin, outcome="refused")
    }
    assert found == {
        ("red", made["id"], "key.revoke", "key_of_another", "scope_missing"),
        ("red", made["id"], "tenant.change", "blue", "scope_missing"),
        ("red", made["id"], "audit.list", None, "scope_missing"),
        ("default", "operator", "key.revoke", "key_0", "not_found"),
        ("-", "unknown", "key.create", None, "key_required"),
        ("-", "unknown", "key.list", None, "key_invalid"),
    }
    # Twenty alike were one record; a minute later the next says how many there were.
    monkeypatch.setattr(refusals, "_EVERY_S", 0.0)
    with httpx.Client(base_url=admin.http.base_url) as nobody:
        nobody.get("/keys", headers=wrong)
    newest = records(admin, action="key.list")[0]
    assert newest["detail"] == {"code": "key_invalid", "repeated": 19}
    verify(export(admin))


def test_a_token_s_holder_is_named_by_its_subject(
    tmp_path: Path, template: Path, broker: str
) -> None:
    from tests.api.provider import AUDIENCE, providing

    with providing() as provider:
        settings = settings_in(tmp_path / "data", template, broker)
        oidc = {"oidc_issuer": provider.issuer, "oidc_audience": AUDIENCE}
        settings = settings.model_copy(update=oidc | {"admin_key": SecretStr(ADMIN_KEY)})
        for service in running(settings):
            service.keyed(provider.sign()).send_model()
            made = records(service.keyed(ADMIN_KEY))
            actions = [(each["actor"], each["action"]) for each in made]
            assert actions == [("oidc:alice", "model.create"), ("oidc:alice", "tenant.create")]


def test_reads_leave_nothing(admin: Service) -> None:
    red = admin.new_tenant("red")
    finished_job(red, "red")
    with admin.database.read() as session:
        before = session.scalar(select(func.count()).select_from(AuditRecord))
    for method, path in calls(red):
        if method == "get" and "{" not in path:
            red.http.get(path)
    with admin.database.read() as session:
        done = select(func.count()).select_from(AuditRecord).where(AuditRecord.outcome == "done")
        assert session.scalar(done) == before
        assert session.scalars(select(Key)).all()
