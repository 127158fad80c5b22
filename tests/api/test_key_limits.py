"""A key that is limited to addresses holds nowhere else; one that expires soon says so."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr, ValidationError
from sqlalchemy import update

from jobstore.keys import Holder, read_network
from jobstore.settings import Settings
from jobstore.tables import Key, Tenant
from tests.api.conftest import ADMIN_KEY, Service, assert_problem, running, settings_in
from tests.api.test_audit import records

Behind = Callable[[str], Service]


@pytest.fixture
def behind(tmp_path: Path, template: Path, broker: str) -> Iterator[Behind]:
    """A running API that believes these proxies, called with the admin's key."""
    started = []

    def start(proxies: str) -> Service:
        settings = settings_in(tmp_path / "data", template, broker)
        more = {"admin_key": SecretStr(ADMIN_KEY), "trusted_proxies": proxies}
        started.append(running(settings.model_copy(update=more)))
        return next(started[-1]).keyed(ADMIN_KEY)

    yield start
    for each in started:
        each.close()


def key(admin: Service, *addresses: str) -> Service:
    new = {"tenant": "red", "scopes": ["jobs:read"], "addresses": list(addresses)}
    made = admin.http.post("/keys", json=new)
    assert made.status_code == 201, made.text
    return admin.keyed(made.json()["key"])


HOLDS = (
    (["127.0.0.1"], True),
    (["127.0.0.0/8"], True),
    (["192.0.2.0/24", "127.0.0.0/30"], True),
    (["0.0.0.0/0"], True),
    (["192.0.2.0/24"], False),
    (["::1", "::/0"], False),
    (["127.0.0.2"], False),
)


def test_a_key_holds_at_its_addresses_and_nowhere_else(admin: Service) -> None:
    for addresses, holds in HOLDS:
        response = key(admin, *addresses).http.get("/jobs")
        if holds:
            assert response.status_code == 200, addresses
        else:
            assert "'127.0.0.1'" in assert_problem(response, 403, "address_not_allowed")
        assert admin.http.get("/keys").json()["data"][0]["addresses"] == addresses


@pytest.mark.parametrize(
    ("address", "networks", "holds"),
    [
        ("2001:db8::7", "2001:db8::/32", True),
        ("2001:db9::7", "2001:db8::/32", False),
        ("192.0.2.7", "2001:db8::/32 192.0.2.0/24", True),
        (None, "0.0.0.0/0 ::/0", False),
        (None, None, True),
    ],
)
def test_addresses_of_both_kinds(address: str | None, networks: str | None, holds: bool) -> None:
    holder = Holder(Tenant(id="red"), frozenset(), "key_1", networks)
    assert holder.may_come_from(address) == holds


NO_ADDRESSES: tuple[list[Any], ...] = (
    [],
    ["everywhere"],
    ["192.0.2.7/24"],
    ["192.0.2.0/33"],
    ["::ffff:192.0.2.7"],
    [1],
    [""],
)


def test_addresses_that_are_none_are_refused(admin: Service) -> None:
    for addresses in NO_ADDRESSES:
        new = {"tenant": "red", "scopes": ["jobs:read"], "addresses": addresses}
        refused = admin.http.post("/keys", json=new)
        assert_problem(refused, 422, "invalid_value")
        assert refused.json()["param"].startswith("addresses"), addresses
    with pytest.raises(ValueError, match="192"):
        read_network("192.0.2.7/24")


def test_a_key_s_addresses_are_changed_and_that_is_in_the_audit_log(admin: Service) -> None:
    limited = key(admin, "192.0.2.0/24")
    (made,) = admin.http.get("/keys").json()["data"]
    itself = f"/keys/{made['id']}"
    for addresses, status in ((["127.0.0.0/30", "::1"], 200), (["192.0.2.1"], 403), (None, 200)):
        changed = admin.http.patch(itself, json={"addresses": addresses})
        assert changed.status_code == 200, changed.text
        unused = changed.json() | {"last_used_at": None}
        assert unused == made | {"addresses": addresses}
        assert limited.http.get("/jobs").status_code == status
    said = [each["detail"] for each in records(admin, action="key.change")]
    assert said[-1] == {"before": ["192.0.2.0/24"], "addresses": ["127.0.0.0/30", "::1"]}
    assert said[0] == {"before": ["192.0.2.1"], "addresses": None}
    for wrong in NO_ADDRESSES:
        refused = admin.http.patch(itself, json={"addresses": wrong})
        assert_problem(refused, 422, "invalid_value")
    assert_problem(admin.http.patch(itself, json={}), 422, "missing_field")
    more = {"addresses": None, "scopes": ["admin"]}
    assert_problem(admin.http.patch(itself, json=more), 422, "unknown_field")
    assert admin.http.get("/keys").json()["data"][0]["addresses"] is None


def test_a_tenant_s_admin_does_not_limit_an_operator_s_key(admin: Service) -> None:
    red = admin.new_tenant("red", "tenant:admin")
    operators = admin.http.post("/keys", json={"tenant": "red", "scopes": ["admin"]}).json()
    refused = red.http.patch(f"/keys/{operators['id']}", json={"addresses": ["192.0.2.1"]})
    assert_problem(refused, 403, "tenant_forbidden")


def test_nobody_moves_by_a_header(admin: Service) -> None:
    """No proxy is trusted: whatever a request says of its origin, it comes from here."""
    elsewhere, here = key(admin, "203.0.113.0/24"), key(admin, "127.0.0.1")
    for header in ("X-Forwarded-For", "X-Real-IP", "Forwarded", "Client-IP", "True-Client-IP"):
        value = "for=203.0.113.7" if header == "Forwarded" else "203.0.113.7"
        refused = elsewhere.http.get("/jobs", headers={header: value})
        assert_problem(refused, 403, "address_not_allowed")
        assert here.http.get("/jobs", headers={header: value}).status_code == 200


def test_a_trusted_proxy_says_who_calls(behind: Behind) -> None:
    admin = behind("127.0.0.1")
    limited = key(admin, "203.0.113.0/24", "2001:db8::/32")

    def ask(forwarded: str | None) -> httpx.Response:
        headers = {"X-Forwarded-For": forwarded} if forwarded else {}
        return limited.http.get("/jobs", headers=headers)

    for address in ("203.0.113.7", "203.0.113.7:4711", "2001:db8::1", "[2001:db8::1]:80"):
        assert ask(address).status_code == 200, address
    # What the caller itself wrote stands in front of what the proxy added.
    assert ask("198.51.100.1, 203.0.113.7").status_code == 200
    for forged in (
        "203.0.113.7, 198.51.100.1",
        "203.0.113.7, unknown",
        "unknown",
        "203.0.113.7, 2001:db9::1",
        "",
        None,
    ):
        assert_problem(ask(forged), 403, "address_not_allowed")
    newest = admin.http.post(
        "/keys",
        json={"tenant": "red", "scopes": ["jobs:read"]},
        headers={"X-Forwarded-For": "::ffff:203.0.113.9"},
    )
    assert newest.status_code == 201
    assert records(admin)[0]["address"] == "203.0.113.9"


def test_only_the_proxies_that_are_named_are_trusted(behind: Behind) -> None:
    admin = behind("10.0.0.0/8, fd00::/8")
    limited = key(admin, "203.0.113.0/24")
    refused = limited.http.get("/jobs", headers={"X-Forwarded-For": "203.0.113.7"})
    assert_problem(refused, 403, "address_not_allowed")


@pytest.mark.parametrize("proxies", ["*", "proxy.example.com", "10.0.0.1/8", "10.0.0.0/8;x"])
def test_proxies_that_are_no_addresses_are_refused(proxies: str) -> None:
    with pytest.raises(ValidationError, match="ATMC_TRUSTED_PROXIES"):
        Settings(trusted_proxies=proxies)


def test_a_refused_address_is_in_the_audit_log(admin: Service) -> None:
    new = {"tenant": "red", "scopes": ["tenant:admin"], "addresses": ["192.0.2.1"]}
    made = admin.http.post("/keys", json=new).json()
    assert_problem(admin.keyed(made["key"]).http.get("/keys"), 403, "address_not_allowed")
    (said,) = records(admin, outcome="refused")
    assert (said["actor"], said["tenant"], said["address"]) == (made["id"], "red", "127.0.0.1")


def test_a_key_that_expires_soon_says_so_with_every_answer(admin: Service) -> None:
    def made(**life: float) -> tuple[Service, datetime]:
        end = datetime.now(UTC) + timedelta(**life)
        new = {"tenant": "red", "scopes": ["jobs:read"], "expires_at": end.isoformat()}
        answer = admin.http.post("/keys", json=new)
        assert "Key-Expires-At" not in answer.headers
        return admin.keyed(answer.json()["key"]), end

    (soon, end), (late, _) = made(days=6.9), made(days=7.1)
    for path, status in (("/jobs", 200), ("/jobs/job_0", 404), ("/keys", 403)):
        answer = soon.http.get(path)
        assert answer.status_code == status
        told = datetime.fromisoformat(answer.headers["Key-Expires-At"])
        assert abs(told - end) < timedelta(seconds=2)
    assert "Key-Expires-At" not in late.http.get("/jobs").headers
    with admin.database.write() as session:
        session.execute(update(Key).values(expires_at=datetime.now(UTC) - timedelta(seconds=1)))
    assert_problem(soon.http.get("/jobs"), 401, "key_invalid")
