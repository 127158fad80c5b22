"""`atmc keys`, and the key that every command sends."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from atmc_client.cli.describing import moment
from atmc_client.client import Client
from atmc_client.errors import ApiError
from jobstore.settings import Settings
from tests.atmc_client.conftest import in_a_process, serving_api
from tests.atmc_client.test_cli import OPTIONS
from tests.atmc_client.test_cli import files as files_to_send
from tests.atmc_client.test_cli import submit as submit_command
from tests.atmc_client.test_transport import answer

submit, files = submit_command, files_to_send


ADMIN_KEY = "the-first-admin-of-the-client"


@pytest.fixture(scope="module")
def api_url(tmp_path_factory, closed_port):
    """An API that asks for keys: others make none."""
    broker = f"redis://127.0.0.1:{closed_port}/0"
    settings = Settings(home=tmp_path_factory.mktemp("asking"), broker_url=broker)
    with serving_api(settings, ATMC_ADMIN_KEY=ADMIN_KEY) as url:
        yield url


@pytest.fixture(autouse=True)
def _as_admin(monkeypatch):
    monkeypatch.setenv("ATMC_API_KEY", ADMIN_KEY)


def create(atmc, *options):
    made = atmc("keys", "create", "--tenant", "red", *options)
    assert made.returncode == 0, made.stderr
    return made


def test_a_key_is_printed_alone_and_opens_its_tenant_s_part(atmc, api_url):
    made = create(atmc, "--scopes", "jobs:write,jobs:read", "--expires", "90d")
    assert re.fullmatch(r"atmc_[\w-]{40,}\n", made.stdout)
    assert re.search(r"key_\w{32} of red for jobs:read, jobs:write, until 20", made.stderr)
    shown = {"ATMC_API_KEY": made.stdout.strip()}
    listed = atmc("list", "--json", environment=shown)
    assert (listed.returncode, json.loads(listed.stdout)) == (0, [])
    refused = atmc("keys", "list", environment=shown)
    assert refused.returncode == 2
    assert "scope_missing" in refused.stderr


def test_a_revoked_key_opens_nothing(atmc, api_url):
    made = json.loads(create(atmc, "--scopes", "jobs:read", "--json").stdout)
    with Client(api_url, key=made["key"]) as client:
        assert client.list_jobs() == []
        assert atmc("keys", "revoke", made["id"]).returncode == 0
        with pytest.raises(ApiError, match="key_invalid"):
            client.list_jobs()
    table = atmc("keys", "list").stdout
    assert re.search(rf"{made['id']} +red +jobs:read ", table)
    assert "(revoked)" in table
    assert made["key"] not in table


def test_a_job_has_a_priority_and_is_deleted_once_it_has_ended(atmc, submit):
    job = json.loads(submit(*OPTIONS, "--priority", "7", "--json").stdout)
    assert job["priority"] == 7
    refused = atmc("delete", job["id"])
    assert (refused.returncode, "not_ended" in refused.stderr) == (2, True)
    assert atmc("cancel", job["id"]).returncode == 0
    assert atmc("delete", job["id"]).returncode == 0
    assert "not_found" in atmc("show", job["id"]).stderr


def test_what_is_no_scope_and_no_moment_is_wrong_usage(atmc):
    for options in (("--scopes", "jobs"), ("--scopes", "admin", "--expires", "soon")):
        made = atmc("keys", "create", "--tenant", "red", *options)
        assert made.returncode == 2
        assert options[-1] in made.stderr


def test_moments_are_spans_or_dates_in_utc():
    assert moment("2030-01-31") == datetime(2030, 1, 31, tzinfo=UTC)
    assert abs(moment("12h") - datetime.now(UTC) - timedelta(hours=12)) < timedelta(seconds=5)


def test_a_request_that_is_still_at_work_is_asked_for_again(scripted):
    def at_work(handler):
        handler.send_response(409)
        for name, value in (("Retry-After", "0"), ("Content-Length", "0")):
            handler.send_header(name, value)
        handler.end_headers()

    scripted.script = [at_work, at_work, answer(202, {"id": "job_1"})]
    with Client(scripted.url, key="k") as client:
        assert client.cancel("job_1") == {"id": "job_1"}
    keys = {seen.headers["Idempotency-Key"] for seen in scripted.seen}
    assert (len(scripted.seen), len(keys)) == (3, 1)
    assert {seen.headers["Authorization"] for seen in scripted.seen} == {"Bearer k"}


def test_the_key_does_not_go_along_to_another_host(scripted):
    def elsewhere(handler):
        handler.send_response(307)
        to = scripted.url.replace("127.0.0.1", "localhost")
        for name, value in (("Location", f"{to}/object"), ("Content-Length", "0")):
            handler.send_header(name, value)
        handler.end_headers()

    scripted.script = [elsewhere, answer(200, {"id": "job_1"})]
    with Client(scripted.url, key="k") as client:
        client.get_job("job_1")
    assert [seen.headers.get("Authorization") for seen in scripted.seen] == ["Bearer k", None]


def test_a_key_is_limited_to_addresses_and_warns_of_its_end(atmc, api_url):
    options = ("--scopes", "jobs:read", "--expires", "2d", "--addresses", "127.0.0.1,2001:db8::/32")
    made = create(atmc, *options)
    assert "from 127.0.0.1, 2001:db8::/32, until 20" in made.stderr
    environment = {"ATMC_API_KEY": made.stdout.strip()}
    # In a process whose log nobody has set up.
    listed = in_a_process("--server", api_url, "list", "--json", environment=environment)
    assert (listed.returncode, json.loads(listed.stdout)) == (0, [])
    assert listed.stderr.count("warning: the key expires at 20") == 1
    elsewhere = create(atmc, "--scopes", "jobs:read", "--addresses", "192.0.2.0/24").stdout.strip()
    refused = atmc("list", environment={"ATMC_API_KEY": elsewhere})
    assert refused.returncode == 2
    assert "address_not_allowed" in refused.stderr
    (key_id,) = [k["id"] for k in json.loads(atmc("keys", "list", "--json").stdout)][:1]
    moved = atmc("keys", "limit", key_id, "--addresses", "192.0.2.0/24, 127.0.0.1")
    assert re.search(rf"{key_id} +red +jobs:read +192.0.2.0/24, 127.0.0.1 +it is", moved.stdout)
    assert atmc("list", environment={"ATMC_API_KEY": elsewhere}).returncode == 0
    anywhere = atmc("keys", "limit", key_id, "--addresses", "any", "--json")
    assert json.loads(anywhere.stdout)["addresses"] is None
    wrong = atmc("keys", "create", "--scopes", "jobs:read", "--addresses", "nowhere")
    assert wrong.returncode == 2
    assert "addresses" in wrong.stderr


def test_a_token_is_asked_for_and_asked_for_anew_once_it_has_expired(scripted, tmp_path):
    asked, command = tmp_path / "asked", tmp_path / "token command"
    command.write_text(f'#!/bin/sh\necho x >> {asked}\necho "$1-$(wc -l < {asked})"\n')
    command.chmod(0o700)
    expired = answer(401, {"code": "token_expired"}, kind="application/problem+json")
    fine = answer(200, {"data": [], "has_more": False, "next": None})
    scripted.script = [fine, expired, fine, expired, expired, fine]
    with Client(scripted.url, token_command=f"'{command}' mine") as client:
        assert client.list_jobs() == []
        # Sent again with a new one, once.
        assert client.list_jobs() == []
        with pytest.raises(ApiError, match="token_expired"):
            client.list_jobs()
    shown = [seen.headers["Authorization"] for seen in scripted.seen]
    assert shown == [f"Bearer mine-{n}" for n in (1, 1, 2, 2, 3)]
    # A key that is given is the one that is shown.
    with Client(scripted.url, key="k", token_command="false") as client:
        client.list_jobs()
    assert scripted.seen[-1].headers["Authorization"] == "Bearer k"


@pytest.mark.parametrize(
    ("command", "said"), [("false", "exit status 1"), ("echo two words", "one word"), ("'", "No c")]
)
def test_a_token_command_that_prints_none_is_named(scripted, command, said):
    done = in_a_process("--server", scripted.url, "--token-command", command, "list")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no token from the token command" in done.stderr
    assert said in done.stderr
    assert scripted.seen == []


def test_a_tenant_s_admin_looks_after_its_keys(atmc, api_url):
    mine = {"ATMC_API_KEY": create(atmc, "--scopes", "tenant:admin").stdout.strip()}
    made = atmc("keys", "create", "--scopes", "jobs:read", environment=mine)
    assert (made.returncode, " of red for jobs:read" in made.stderr) == (0, True)
    refused = atmc(
        *("keys", "create", "--tenant", "blue", "--scopes", "jobs:read"), environment=mine
    )
    assert (refused.returncode, "tenant_forbidden" in refused.stderr) == (2, True)


def test_the_audit_log_is_listed_exported_and_verified(atmc, api_url, tmp_path):
    key_id = json.loads(create(atmc, "--scopes", "jobs:read", "--json").stdout)["id"]
    listed = json.loads(atmc("audit", "list", "--action", "key", "--json").stdout)
    assert (listed[0]["object"], listed[0]["actor"]) == (key_id, "operator")
    table = atmc("audit", "list", "--limit", "1").stdout
    assert re.search(rf"red +operator +key\.create +{key_id[:12]}\w+ +127\.0\.0\.1 +done", table)
    heads, file = tmp_path / "heads.json", tmp_path / "audit.jsonl"
    heads.write_text(atmc("audit", "heads", "--json").stdout)
    assert re.search(r"^red \d+ [0-9a-f]{64}$", atmc("audit", "heads").stdout, re.MULTILINE)
    assert atmc("audit", "export", "-o", str(file)).returncode == 0
    held = atmc("audit", "verify", str(file), "--heads", str(heads))
    assert held.returncode == 0, held.stderr
    assert re.search(r"holds: red, records 1 to \d+ ", held.stdout)
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines).replace('"operator"', '"somebody"', 1))
    broken = atmc("audit", "verify", str(file))
    assert broken.returncode == 1
    assert re.search(r"broken: line \d+ \(\w+, \d+\) was changed", broken.stderr)
    # Cut at its end, head and all, it is no whole export; and the head that was kept knows.
    file.write_text("".join(lines[:1]))
    assert "its end was cut off" in atmc("audit", "verify", str(file)).stderr
    part = atmc("audit", "export", "--actor", "operator").stdout
    file.write_text(part)
    assert atmc("audit", "verify", str(file), "--part").returncode == 0
    file.write_text("")
    assert atmc("audit", "verify", str(file)).returncode == 1
