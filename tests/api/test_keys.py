"""Keys: made once, kept as a hash, asked for everywhere, gone at once when revoked."""

import hashlib
import socket
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import select, text, update

from jobstore.keys import Scope, create_key
from jobstore.tables import IdempotencyKey as Answered
from jobstore.tables import Key
from tests.api.conftest import Service, assert_problem, wait_until

OPEN = {
    ("get", f"/{name}")
    for name in ("metrics", "healthz", "readyz", "signing-keys", ".well-known/security.txt")
}


def make(admin: Service, **changes: object) -> httpx.Response:
    return admin.http.post("/keys", json={"tenant": "red", "scopes": ["jobs:read"]} | changes)


def test_a_key_is_shown_once_and_only_its_hash_is_kept(admin: Service) -> None:
    made = make(admin)
    assert made.status_code == 201
    secret = made.json()["key"]
    assert secret.startswith("atmc_")
    assert len(secret) >= 40
    assert made.headers["Cache-Control"] == "no-store"
    listed = admin.http.get("/keys").json()["data"]
    assert [key["id"] for key in listed] == [made.json()["id"]]
    assert "key" not in listed[0]
    with admin.database.read() as session:
        row = session.execute(select(Key.__table__)).mappings().one()
        assert row["hash"] == hashlib.sha256(secret.encode()).hexdigest()
        assert secret not in str(dict(row))


def test_the_same_request_twice_makes_one_key_and_shows_it_once(admin: Service) -> None:
    twice = {"Idempotency-Key": "twice"}
    body = {"tenant": "red", "scopes": ["jobs:read", "jobs:write", "admin"]}
    made = admin.http.post("/keys", json=body, headers=twice)
    assert made.status_code == 201
    again = admin.http.post("/keys", json=body, headers=twice)
    assert_problem(again, 409, "key_shown_once", "Idempotency-Key")
    assert made.json()["id"] in again.json()["detail"]
    other = admin.http.post("/keys", json=body | {"tenant": "blue"}, headers=twice)
    assert_problem(other, 422, "idempotency_conflict", "Idempotency-Key")
    assert [key["id"] for key in admin.http.get("/keys").json()["data"]] == [made.json()["id"]]
    assert admin.keyed(made.json()["key"]).http.get("/jobs").status_code == 200
    with admin.database.read() as session:
        kept = session.execute(select(Answered.__table__)).mappings().one()
        assert made.json()["key"] not in str(dict(kept))


def test_every_call_but_the_probes_asks_for_a_key(admin: Service) -> None:
    document = admin.http.get("/openapi.json").json()
    asked = 0
    with httpx.Client(base_url=admin.http.base_url) as nobody:
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                if (method, path) in OPEN:
                    assert "security" not in operation
                    continue
                asked += 1
                assert operation["security"] == [{"key": []}], path
                assert {"401", "403"} <= set(operation["responses"])
                response = nobody.request(method, path.replace("{", "").replace("}", ""))
                assert_problem(response, 401, "key_required")
                assert response.headers["WWW-Authenticate"] == "Bearer"
    assert asked > 15


def test_the_probes_ask_for_none(admin: Service) -> None:
    with httpx.Client(base_url=admin.http.base_url) as nobody:
        assert nobody.get("/healthz").status_code == 200
        assert nobody.get("/readyz").status_code == 200


def test_a_revoked_key_is_refused_at_once(admin: Service) -> None:
    made = make(admin).json()
    red = admin.keyed(made["key"])
    assert red.http.get("/jobs").status_code == 200
    assert admin.http.delete(f"/keys/{made['id']}").status_code == 204
    assert_problem(red.http.get("/jobs"), 401, "key_invalid")
    assert admin.http.delete(f"/keys/{made['id']}").status_code == 204
    (listed,) = admin.http.get("/keys").json()["data"]
    assert listed["revoked_at"] is not None
    assert_problem(admin.http.delete("/keys/key_0"), 404, "not_found")


def test_an_expired_key_is_refused(admin: Service) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    made = make(admin, expires_at=later.isoformat()).json()
    red = admin.keyed(made["key"])
    assert red.http.get("/jobs").status_code == 200
    with admin.database.write() as session:
        session.execute(update(Key).values(expires_at=datetime.now(UTC) - timedelta(seconds=1)))
    assert_problem(red.http.get("/jobs"), 401, "key_invalid")
    past = datetime.now(UTC) - timedelta(hours=1)
    refused = make(admin, expires_at=past.isoformat())
    assert_problem(refused, 422, "invalid_value", "expires_at")


@pytest.mark.parametrize("shown", ["atmc_wrong", "wrong", "w\u00f6rong", "a" * 5000, "a b"])
def test_a_key_that_is_none_is_refused(admin: Service, shown: str) -> None:
    headers = {"Authorization": f"Bearer {shown}".encode()}
    with httpx.Client(base_url=admin.http.base_url) as caller:
        assert_problem(caller.get("/jobs", headers=headers), 401, "key_invalid")


def test_the_last_use_is_recorded_to_the_minute(admin: Service) -> None:
    made = make(admin).json()
    assert made["last_used_at"] is None
    red = admin.keyed(made["key"])

    def last_used() -> datetime | None:
        (listed,) = admin.http.get("/keys").json()["data"]
        return listed["last_used_at"] and datetime.fromisoformat(listed["last_used_at"])

    red.http.get("/jobs")
    first = last_used()
    assert first is not None
    assert abs(datetime.now(UTC) - first) < timedelta(seconds=10)
    red.http.get("/jobs")
    assert last_used() == first
    with admin.database.write() as session:
        session.execute(update(Key).values(last_used_at=first - timedelta(seconds=61)))
    red.http.get("/jobs")
    wait_until(lambda: last_used() > first - timedelta(seconds=61))


def test_a_key_does_what_its_scopes_say_and_no_more(admin: Service) -> None:
    reader = admin.new_tenant("red", "jobs:read")
    writer = admin.new_tenant("red", "jobs:write")
    assert reader.http.get("/jobs").status_code == 200
    assert_problem(reader.send_model(), 403, "scope_missing")
    assert_problem(reader.http.post("/jobs", json={}), 403, "scope_missing")
    assert writer.send_model().status_code == 201
    assert_problem(writer.http.get("/jobs"), 403, "scope_missing")
    both = admin.new_tenant("red", "jobs:read", "jobs:write")
    assert_problem(both.http.get("/keys"), 403, "scope_missing")
    assert_problem(both.http.delete("/keys/key_0"), 403, "scope_missing")
    assert_problem(make(both), 403, "scope_missing")
    assert make(admin.new_tenant("blue", "admin")).status_code == 201


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"tenant": "../blobs"}, "tenant"),
        ({"tenant": "Red"}, "tenant"),
        ({"tenant": "red\n"}, "tenant"),
        ({"tenant": ""}, "tenant"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["jobs:all"]}, None),
        ({"expires_at": "2030-01-01T00:00:00"}, "expires_at"),
    ],
)
def test_a_key_for_nobody_or_nothing_is_refused(
    admin: Service, changes: dict[str, object], param: str | None
) -> None:
    assert_problem(make(admin, **changes), 422, "invalid_value", *([param] if param else []))


def test_without_an_admin_key_this_machine_is_let_in_and_keys_hold_all_the_same(
    service: Service,
) -> None:
    assert service.http.get("/jobs").status_code == 200
    # Made while the service asked for keys.
    with service.database.write() as session:
        scopes = [Scope.READ, Scope.WRITE]
        _, secret = create_key(session, tenant="red", scopes=scopes, expires_at=None)
    red = service.keyed(secret)
    assert red.send_model().status_code == 201
    assert_problem(service.keyed("atmc_wrong").http.get("/jobs"), 401, "key_invalid")
    with service.database.read() as session:
        owners = session.scalars(text("SELECT tenant_id FROM models")).all()
    assert owners == ["red"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:8000", "Origin": "http://evil.example:8000"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1.evil.example"},
        {"Origin": "null"},
        {"Host": "0.0.0.0"},
        {"Host": "192.0.2.1"},
    ],
)
def test_without_keys_a_page_from_elsewhere_reaches_nothing(
    service: Service, headers: dict[str, str]
) -> None:
    assert_problem(service.http.get("/jobs", headers=headers), 403, "foreign_origin")
    refused = service.http.post("/models", content=b"x", headers=headers)
    assert_problem(refused, 403, "foreign_origin")
    assert service.http.get("/healthz", headers=headers).status_code == 200


def test_without_keys_this_machine_s_own_pages_do(service: Service) -> None:
    port = service.http.base_url.port
    for host in ("localhost", "127.0.0.1", "[::1]"):
        headers = {"Host": f"{host}:{port}", "Origin": f"http://{host}:{port}"}
        assert service.http.get("/jobs", headers=headers).status_code == 200


@pytest.mark.parametrize("call", ["POST /keys", "PATCH /tenants/red", "POST /jobs", "POST /models"])
def test_nobody_s_body_is_read_before_they_are_let_in(admin: Service, call: str) -> None:
    port = admin.http.base_url.port
    with socket.create_connection(("127.0.0.1", port), timeout=10) as caller:
        head = f"{call} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        # Of the gigabyte it speaks of it sends nothing, and is answered all the same.
        caller.sendall(f"{head}Content-Length: 1000000000\r\n\r\n".encode())
        assert caller.recv(12) == b"HTTP/1.1 401"


def test_a_body_of_an_admin_has_its_limit_too(admin: Service) -> None:
    long = {"tenant": "red", "scopes": ["jobs:read"], "x": "x" * 300_000}
    assert_problem(admin.http.post("/keys", json=long), 413, "file_too_large")


def test_no_key_is_made_while_nobody_is_asked_for_one(shared: Service) -> None:
    body = {"tenant": "red", "scopes": ["admin"]}
    for headers in ({}, {"Idempotency-Key": "once"}, {"Authorization": "Bearer atmc_x"}):
        response = shared.http.post("/keys", json=body, headers=headers)
        assert response.status_code in (401, 409)
    assert_problem(shared.http.post("/keys", json=body), 409, "nobody_is_asked")
    with shared.database.read() as session:
        assert session.scalars(select(Key)).all() == []
