"""A tenant that goes leaves no row and no byte, wherever its erasing is interrupted."""

import io
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import delete, select, text
from sqlalchemy.orm import Session

from atmc_client.cli import main
from jobstore import leases
from jobstore.blobs import touch
from jobstore.database import Database
from jobstore.dialects import forget_deleted
from jobstore.erasure import KEPT, erase
from jobstore.errors import LeaseLost, TenantGone
from jobstore.objects import ObjectStore, checkpoint_key
from jobstore.states import JobState
from jobstore.tables import AuditChain, AuditRecord, Base, Tenant
from jobstore.tenancy import Origin
from keeper.erasure import erase_tenants
from keeper.retention import retain_once
from tests.api.conftest import (
    ADMIN_KEY,
    Service,
    assert_problem,
    begun_sweep,
    claimed,
    finished_job,
)
from tests.api.test_tenants import begin_upload, told_webhook
from tests.conftest import EMBEDDED

# It must stand nowhere else.
NAME = "quartz-7"
ID = re.compile(r"\b(?:job|mdl|dst|key|upl|whk|msg|sweep)_[0-9a-f]{32}\b")


def fill(admin: Service, name: str) -> Service:
    """Have the tenant cause a row of every kind, and objects of every kind."""
    named = {"Idempotency-Key": f"key-of-{name}"}
    new = {"tenant": name, "scopes": ["jobs:read", "jobs:write"]}
    tenant = admin.keyed(admin.http.post("/keys", json=new, headers=named).json()["key"])
    finished_job(tenant, name)
    begin_upload(tenant)
    told_webhook(tenant)
    begun_sweep(tenant)
    direct = {"bytes": 5, "sha256": "ab" * 32, "filename": f"{name}.npz"}
    tenant.http.post("/uploads/direct", json=direct)  # Refused where the store is a folder.
    tenant.send_whole_job(**{"Idempotency-Key": "k"})
    return tenant


def checkpoint(service: Service, attempt: leases.Attempt) -> None:
    """Store a checkpoint of the attempt, as its worker does."""
    path = service.settings.home / "checkpoint"
    path.write_text("weights")
    key = checkpoint_key(attempt.job_id, attempt.number, "000001.pt")
    service.services.store.put_file(key, path)
    with service.database.write() as session:
        leases.set_checkpoint(session, attempt, key)


def rows(service: Service) -> str:
    """Everything in the database but the audit log, as text."""
    with service.database.read() as session:
        return "\n".join(
            f"{table.name} {json.dumps(dict(row), default=str)}"
            for table in Base.metadata.sorted_tables
            if not table.name.startswith(KEPT)
            for row in session.execute(select(table)).mappings()
        )


def left_of(service: Service, words: set[str]) -> list[str]:
    """Where one of the words still stands: in a row, a key of the store, an object, a file.

    The audit log is kept by a policy of its own, which is over here.
    """
    with service.database.write() as session:
        session.execute(delete(AuditRecord))
        session.execute(delete(AuditChain))
    forget_deleted(service.database.engine)
    found = [line for line in rows(service).splitlines() if any(word in line for word in words)]
    store = service.services.store
    for key in [each.key for each in store.find()]:
        with store.open(key) as file:
            content = file.read().decode(errors="replace")
        found += [key for word in words if word in key or word in content]
    for path in service.settings.home.glob("atmc.db*"):
        content = path.read_bytes().decode(errors="replace")
        found += [f"{path.name}: {word}" for word in words if word in content]
    return found


def keep(service: Service) -> None:
    """What the keeper does every few seconds."""
    erase_tenants(service.database, service.services.store, service.settings.home / "logs")


def test_no_row_and_no_byte_is_left_and_another_tenant_has_all_that_it_had(admin: Service) -> None:
    other = fill(admin, "blue")
    before, kept = rows(admin), admin.services.store.keys()
    quartz = fill(admin, NAME)
    attempt = claimed(admin)
    while attempt.tenant != NAME:
        attempt = claimed(admin)
    checkpoint(admin, attempt)
    words = {NAME, *ID.findall(rows(admin))} - set(ID.findall(before))
    assert len(words) > 10
    assert len(left_of(admin, words)) > 20
    assert_problem(other.http.delete(f"/tenants/{NAME}"), 403, "scope_missing")
    for _ in range(2):
        asked = admin.http.delete(f"/tenants/{NAME}")
        assert asked.status_code == 202
        assert asked.json()["erase_requested_at"] is not None
    assert_problem(quartz.http.get("/jobs"), 401, "key_invalid")
    again = {"tenant": NAME, "scopes": ["jobs:read"]}
    assert_problem(admin.http.post("/keys", json=again), 409, "being_erased")
    # A job at work ends first; its worker is told by its next heartbeat.
    keep(admin)
    assert NAME in admin.http.get("/tenants").text
    with admin.database.write() as session:
        state = leases.renew(session, attempt, lease_s=60, run_seconds=1)
        assert state.cancel_requested
        leases.finish(session, attempt, JobState.CANCELLED)
    keep(admin)
    assert left_of(admin, words) == []
    assert NAME not in admin.http.get("/tenants").text
    assert_problem(admin.http.delete(f"/tenants/{NAME}"), 404, "not_found")
    with pytest.raises(LeaseLost), admin.database.write() as session:
        leases.renew(session, attempt, lease_s=60, run_seconds=1)
    assert set(kept) <= set(admin.services.store.keys())
    assert other.http.get("/jobs").json()["data"] != []
    # What is left where a direct upload's URL may still be used is empty, and goes with time.
    store = admin.services.store
    assert all(store.size(key) == 0 for key in set(store.keys()) - set(kept))


@pytest.mark.parametrize("column", [EMBEDDED])
def test_erasing_goes_on_wherever_it_was_killed(
    admin: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(admin, NAME)
    words = {NAME, *ID.findall(rows(admin))}
    admin.http.delete(f"/tenants/{NAME}")
    delete, write = ObjectStore.delete, Database.write
    steps = last = 0

    class Killed(BaseException):
        pass

    def step() -> None:
        nonlocal steps
        steps += 1
        if steps == last:
            raise Killed

    def deleting(store: ObjectStore, key: str) -> None:
        delete(store, key)
        step()

    @contextmanager
    def writing(database: Database) -> Iterator[Session]:
        with write(database) as session:
            yield session
        step()

    # Each round dies one step later than the round before, after an object or a transaction.
    monkeypatch.setattr(ObjectStore, "delete", deleting)
    monkeypatch.setattr(Database, "write", writing)
    while NAME in admin.http.get("/tenants").text:
        steps, last = 0, last + 1
        with suppress(Killed):
            keep(admin)
    assert last > 5
    monkeypatch.undo()
    # The last of them was killed before the database's log was emptied.
    forget_deleted(admin.database.engine)
    assert left_of(admin, words) == []


@pytest.mark.parametrize("column", [EMBEDDED])
def test_a_request_that_was_let_in_before_writes_nothing_after(admin: Service) -> None:
    fill(admin, NAME)
    with admin.database.read() as session:
        part = admin.services.of(session.get_one(Tenant, NAME), Origin("test"))
    admin.http.delete(f"/tenants/{NAME}")
    for _ in range(2):  # While it is being erased, and after.
        with pytest.raises(TenantGone), part.database.write() as session:
            touch(session, NAME, "ab" * 32, 1)
        keep(admin)
    assert NAME not in rows(admin)


def test_one_that_is_let_in_is_waited_for(service_on_postgres: Service) -> None:
    database, store = service_on_postgres.database, service_on_postgres.services.store
    with database.write() as session:
        session.add(Tenant(id=NAME))
    with database.of(NAME).write() as session:
        touch(session, NAME, "ab" * 32, 1)
        assert not erase(database, store, NAME)
    assert erase(database, store, NAME)
    with database.read() as session:
        assert session.execute(text("SELECT count(*) FROM blobs")).scalar_one() == 0


@pytest.mark.parametrize("column", [EMBEDDED])
def test_the_tenant_that_the_service_needs_cannot_go(admin: Service) -> None:
    assert_problem(admin.http.delete("/tenants/default"), 422, "invalid_value", "name")
    assert_problem(admin.http.delete("/tenants/nobody"), 404, "not_found")


@pytest.mark.parametrize("column", [EMBEDDED])
def test_the_command_asks_once_more_and_waits(
    admin: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    admin.new_tenant(NAME)
    monkeypatch.setenv("ATMC_API_KEY", ADMIN_KEY)

    def atmc(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["atmc", f"--server={admin.http.base_url}", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), "".join(capsys.readouterr())

    monkeypatch.setattr("sys.stdin", io.StringIO("another\n"))
    assert atmc("tenants", "erase", NAME)[0] == 2
    assert 'erase_requested_at": null' in atmc("tenants", "list", "--json")[1]
    code, said = atmc("tenants", "erase", NAME, "--yes", "--wait", "0")
    assert (code, "still being erased" in said) == (1, True)
    assert NAME in atmc("tenants", "list")[1]
    monkeypatch.setattr(time, "sleep", lambda _: keep(admin))
    code, said = atmc("tenants", "erase", NAME, "--yes")
    assert (code, said) == (0, f"{NAME} is gone\n")


@pytest.mark.parametrize("column", [EMBEDDED])
def test_the_logs_of_the_data_folder_lose_the_lines_that_name_it(
    admin: Service, tmp_path: Path
) -> None:
    admin.new_tenant(NAME)
    logs = admin.settings.home / "logs"
    logs.mkdir()
    other = "INFO api.requests: request tenant=quartz-77 path=/jobs\n"
    mine = [
        f"INFO api.requests: request tenant={NAME} path=/jobs\n",
        f'{{"message": "request", "tenant": "{NAME}"}}\n',
        f"INFO api.requests: request tenant=default path=/tenants/{NAME} status=202\n",
    ]
    with (logs / "api.log").open("a") as log:
        log.write(mine[0] + other + mine[1] + mine[2])
        log.flush()
        admin.http.delete(f"/tenants/{NAME}")
        keep(admin)
        # The part that writes the log goes on.
        log.write("after\n")
    assert (logs / "api.log").read_text() == f"{other}after\n"


@pytest.mark.parametrize("column", [EMBEDDED])
def test_what_a_late_worker_puts_there_all_the_same_goes_with_the_next_sweeps(
    admin: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin.new_tenant(NAME)
    admin.http.delete(f"/tenants/{NAME}")
    keep(admin)
    path = admin.settings.home / "late"
    path.write_text("late")
    stored = admin.services.store.of(NAME).put_blob(path)
    assert NAME in stored.key
    monkeypatch.setattr("jobstore.stocktaking.UNSETTLED_S", -1.0)
    monkeypatch.setattr("jobstore.blobs.UNSETTLED_S", -1.0)
    retain_once(admin.settings, admin.database, admin.services.store)
    assert admin.services.store.keys() == []
