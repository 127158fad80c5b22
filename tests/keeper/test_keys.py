"""The keeper reminds of keys that expire soon, once, and chains the audit log."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from jobstore import audit, webhooks
from jobstore.dialects import now
from jobstore.keys import Scope, create_key, revoke_key
from jobstore.tables import AuditRecord, WebhookDelivery
from jobstore.tenancy import Origin
from jobstore.tenants import get_or_create_tenant
from keeper.audit import retain_audit, seal_all
from keeper.reminders import remind_of_keys
from tests.keeper.webhooks.conftest import subscribe

WEEK = 7 * 86_400.0


def add_key(bench, tenant: str, days: float | None) -> str:
    with bench.database.write() as session:
        end = None if days is None else now(session) + timedelta(days=days)
        return create_key(session, tenant=tenant, scopes=[Scope.READ], expires_at=end)[0].id


def test_who_listens_is_told_once_of_a_key_that_expires_soon(bench, caplog) -> None:
    listens = subscribe(
        bench.database, "https://a.example.com", webhooks.KEY_EXPIRING, tenant="red"
    )
    subscribe(bench.database, "https://b.example.com", "job.failed", tenant="red")
    subscribe(bench.database, "https://c.example.com", webhooks.KEY_EXPIRING, tenant="blue")
    soon = add_key(bench, "red", 6.9)
    for days in (7.1, None, -1):
        add_key(bench, "red", days)
    with bench.database.write() as session:
        end = now(session) + timedelta(days=2)
        key, _ = create_key(session, tenant="red", scopes=[Scope.READ], expires_at=end)
        revoke_key(session, key)
    for _ in range(3):
        remind_of_keys(bench.database, WEEK)
    with bench.database.read() as session:
        (told,) = session.scalars(select(WebhookDelivery)).all()
        assert (told.webhook_id, told.type, told.tenant_id) == (listens, "key.expiring", "red")
        assert (told.data["key_id"], told.data["scopes"]) == (soon, ["jobs:read"])
        assert told.data["expires_at"]
    assert caplog.text.count("a key expires soon") == 1


def test_a_key_with_a_new_end_is_told_of_in_its_time(bench) -> None:
    subscribe(bench.database, "https://a.example.com", "key.expiring", tenant="red")
    add_key(bench, "red", 20)
    remind_of_keys(bench.database, WEEK)
    with bench.database.read() as session:
        assert session.scalars(select(WebhookDelivery)).all() == []
    remind_of_keys(bench.database, 3 * WEEK)
    with bench.database.read() as session:
        assert len(session.scalars(select(WebhookDelivery)).all()) == 1


def test_the_keeper_chains_the_log_deletes_what_is_old_and_says_where_it_stands(
    bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with bench.database.write() as session:
        get_or_create_tenant(session, "red")
    for number in range(3):
        with bench.database.of("red", Origin("key_1")).write() as session:
            audit.record(session, "job.create", f"job_{number}")
    with bench.database.write() as session:
        for row in session.scalars(select(AuditRecord).order_by(AuditRecord.id).limit(2)):
            row.time -= timedelta(days=100)
    seal_all(bench.database)
    retain_audit(bench.database, None)
    with bench.database.read() as session:
        (chain,) = audit.list_chains(session)
    assert chain.seq == 3
    head = next(r for r in caplog.records if r.message == "audit head")
    assert (head.tenant, head.seq, head.hash) == ("red", 3, chain.hash)
    retain_audit(bench.database, 90 * 86_400.0)
    with bench.database.read() as session:
        left = session.scalars(select(AuditRecord).order_by(AuditRecord.seq)).all()
    assert [(row.seq, row.action) for row in left] == [(3, "job.create"), (4, "audit.expire")]
    assert left[1].actor == "keeper"
