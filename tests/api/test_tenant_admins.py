"""A tenant's admin looks after its own tenant, and after nothing else."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.api.conftest import Service, assert_problem
from tests.api.test_audit import records

# The calls of admins, and what a tenant's admin gets who asks for another's: by operation.
ADMINISTRATIVE = {
    ("post", "/keys"): 403,
    ("get", "/keys"): "own",
    ("patch", "/keys/{key_id}"): 404,
    ("delete", "/keys/{key_id}"): 404,
    ("get", "/tenants"): "own",
    ("patch", "/tenants/{name}"): 403,
    ("delete", "/tenants/{name}"): 403,
    ("get", "/audit"): 403,
    ("get", "/audit/heads"): "own",
}


def administrative(service: Service) -> set[tuple[str, str]]:
    document = service.http.get("/openapi.json").json()
    return {
        (method, path)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if set(operation["tags"]) & {"keys", "tenants", "audit"}
    }


def state(admin: Service) -> Any:
    """All keys and tenants, but for when a key was last used."""
    keys = admin.http.get("/keys").json()["data"]
    used = [{**key, "last_used_at": None} for key in keys]
    return used, admin.http.get("/tenants").json()["data"]


def make(service: Service, **new: Any) -> Any:
    return service.http.post("/keys", json={"scopes": ["jobs:read"]} | new)


def test_every_call_of_admins_is_for_their_own_tenant(admin: Service) -> None:
    """Walks all of them: as somebody without the scope, and as an admin of another tenant."""
    assert administrative(admin) == set(ADMINISTRATIVE)
    writer = admin.new_tenant("blue", "jobs:read", "jobs:write")
    blue = admin.new_tenant("blue", "tenant:admin")
    theirs = make(admin, tenant="crimson").json()
    ids = {"key_id": theirs["id"], "name": "crimson"}
    before = state(admin)
    for (method, path), expected in ADMINISTRATIVE.items():
        url = path.format(**ids)
        body = {"json": {"tenant": "crimson", "scopes": ["jobs:read"]}} if method == "post" else {}
        if method == "patch":
            body = {"json": {"addresses": None} if "key_id" in path else {"max_running_jobs": 9}}
        query = {"params": {"tenant": "crimson"}} if path == "/audit" else {}
        refused = writer.http.request(method, url, **body, **query)
        assert_problem(refused, 403, "scope_missing")
        answer = blue.http.request(method, url, **body, **query)
        if expected == "own":
            assert answer.status_code == 200, answer.text
            assert "crimson" not in answer.text, path
            assert theirs["id"] not in answer.text, path
        else:
            assert answer.status_code == expected, (method, path, answer.text)
            assert answer.json()["code"] in ("tenant_forbidden", "not_found", "scope_missing")
    assert state(admin) == before
    # Another's key is answered like one that never was, but for its id.
    never = blue.http.delete("/keys/key_0").text.replace("key_0", "")
    assert blue.http.delete(f"/keys/{theirs['id']}").text.replace(theirs["id"], "") == never
    assert admin.keyed(theirs["key"]).http.get("/jobs").status_code == 200


def test_a_tenant_s_admin_makes_and_revokes_its_keys(admin: Service) -> None:
    blue = admin.new_tenant("blue", "tenant:admin")
    made = make(blue, scopes=["jobs:read", "jobs:write"], addresses=["127.0.0.1"])
    assert made.status_code == 201, made.text
    assert made.json()["tenant"] == "blue"
    member = admin.keyed(made.json()["key"])
    assert member.send_model().status_code == 201
    second = make(blue, tenant="blue", scopes=["tenant:admin", "audit:read"]).json()
    assert len(admin.keyed(second["key"]).http.get("/keys").json()["data"]) == 3
    assert blue.http.delete(f"/keys/{made.json()['id']}").status_code == 204
    assert_problem(member.http.get("/jobs"), 401, "key_invalid")
    # It looks after keys; what the jobs are is another scope's.
    assert_problem(blue.http.get("/jobs"), 403, "scope_missing")
    assert_problem(blue.send_model(), 403, "scope_missing")
    actors = {each["actor"] for each in records(blue, action="key.revoke")}
    assert actors == {key["id"] for key in blue.http.get("/keys").json()["data"]} & actors


def test_a_tenant_s_admin_makes_no_operator_and_ends_none(admin: Service) -> None:
    blue = admin.new_tenant("blue", "tenant:admin")
    assert_problem(make(blue, scopes=["admin"]), 403, "scope_missing", "scopes")
    assert_problem(make(blue, tenant="red"), 403, "tenant_forbidden", "tenant")
    assert_problem(make(blue, tenant="default"), 403, "tenant_forbidden", "tenant")
    operator = make(admin, tenant="blue", scopes=["admin"]).json()
    refused = blue.http.delete(f"/keys/{operator['id']}")
    assert_problem(refused, 403, "tenant_forbidden")
    assert admin.keyed(operator["key"]).http.get("/tenants").status_code == 200
    assert admin.http.get("/tenants").json()["data"][0]["name"] == "blue"
    (listed,) = [k for k in blue.http.get("/keys").json()["data"] if k["id"] == operator["id"]]
    assert listed["revoked_at"] is None


def test_a_tenant_s_admin_sees_its_terms_and_changes_none(admin: Service) -> None:
    admin.http.patch("/tenants/default", json={"max_running_jobs": 7})
    blue = admin.new_tenant("blue", "tenant:admin")
    admin.http.patch("/tenants/blue", json={"max_running_jobs": 2})
    (seen,) = blue.http.get("/tenants").json()["data"]
    assert (seen["name"], seen["terms"]["max_running_jobs"]) == ("blue", 2)
    for terms in ({"max_running_jobs": 3}, {"max_running_jobs": None}, {"keep_events_s": 1}, {}):
        for name in ("blue", "red", "default"):
            assert_problem(blue.http.patch(f"/tenants/{name}", json=terms), 403, "scope_missing")
    assert blue.http.get("/tenants").json()["data"] == [seen]


def test_a_tenant_s_admin_looks_after_its_webhooks(admin: Service) -> None:
    blue, red = admin.new_tenant("blue", "tenant:admin"), admin.new_tenant("red", "tenant:admin")
    new = {"url": "https://hooks.example.com", "events": ["key.expiring"]}
    made = blue.http.post("/webhooks", json=new)
    assert made.status_code == 201, made.text
    path = made.json()["links"]["self"]
    rotated = blue.http.post(f"{path}/rotate-secret").json()["secret"]
    assert rotated != made.json()["secret"]
    assert blue.http.patch(path, json={"events": ["job.failed"]}).status_code == 200
    assert red.http.get("/webhooks").json()["data"] == []
    for method, url in (("post", f"{path}/rotate-secret"), ("delete", path), ("get", path)):
        assert_problem(red.http.request(method, url), 404, "not_found")
    assert blue.http.delete(path).status_code == 204


def test_an_idempotency_key_of_a_tenant_s_admin_is_the_tenant_s(admin: Service) -> None:
    once = {"Idempotency-Key": "k"}
    for tenant in ("blue", "red"):
        theirs = admin.new_tenant(tenant, "tenant:admin")
        body = {"scopes": ["jobs:read"]}
        assert theirs.http.post("/keys", json=body, headers=once).status_code == 201
        again = theirs.http.post("/keys", json=body, headers=once)
        assert_problem(again, 409, "key_shown_once")


@pytest.mark.parametrize("ends", ["revoked", "expired"])
def test_an_admin_whose_key_has_ended_is_none(admin: Service, ends: str) -> None:
    later = datetime.now(UTC) + timedelta(days=1)
    made = make(admin, tenant="blue", scopes=["tenant:admin"], expires_at=later.isoformat()).json()
    blue = admin.keyed(made["key"])
    assert blue.http.get("/keys").status_code == 200
    if ends == "revoked":
        assert blue.http.delete(f"/keys/{made['id']}").status_code == 204
    else:
        with admin.database.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE keys SET expires_at = '2020-01-01 00:00:00.000000'")
    assert_problem(blue.http.get("/keys"), 401, "key_invalid")
