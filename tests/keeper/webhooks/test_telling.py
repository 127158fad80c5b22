"""Who is told what: signed, in order, and only what was asked for."""

import json
from typing import Any

import pytest
from standardwebhooks import Webhook as Verifier

from jobstore import jobs, webhooks
from jobstore.database import Database
from jobstore.deliveries import Outgoing
from jobstore.tenants import get_or_create_tenant
from keeper.webhooks import signed
from tests.keeper.webhooks.conftest import (
    Receiver,
    log,
    run_job,
    send_due,
    subscribe,
)


def test_a_receiver_gets_signed_events_in_order(
    database: Database, add_job: Any, receiver: Receiver
) -> None:
    hook = subscribe(database, receiver.url)
    job = add_job(name="mine")
    run_job(database)
    assert send_due(database) == 3
    assert receiver.types() == ["job.queued", "job.validating", "job.failed"]
    with database.read() as session:
        secret = webhooks.get_webhook(session, hook).secret
    for headers, body in receiver.got:
        assert Verifier(secret).verify(body, headers) == json.loads(body)
        with pytest.raises(Exception, match="signature"):
            Verifier(secret).verify(body + b" ", headers)
    last = json.loads(receiver.got[-1][1])
    assert last["data"]["job_id"] == job.id
    assert last["data"]["name"] == "mine"
    assert last["data"]["error"] == {"code": "time_limit", "message": "too long"}
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 3
    assert [(statuses, waits) for _, statuses, waits in log(database, hook)] == [([204], False)] * 3


def test_the_headers_of_a_delivery_are_those_of_every_version_before() -> None:
    secret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    outgoing = Outgoing("msg_1", 1, "default", "wh_1", None, "http://a.example/", secret, {})
    content = '{"data":{"name":"Größe"},"type":"job.queued"}'.encode()
    # The figure was computed with the standard library's hmac and not with the signing package.
    assert signed(outgoing, content, 1_700_000_000) == {
        "Content-Type": "application/json",
        "User-Agent": "atmc",
        "webhook-id": "msg_1",
        "webhook-timestamp": "1700000000",
        "webhook-signature": "v1,0SKrCLUVgGTw0w3uFfNwC1Uk7Ptsa/D8I41vhJrJ/is=",
    }


def test_a_rotated_secret_signs_what_is_sent_from_then_on(
    database: Database, add_job: Any, receiver: Receiver
) -> None:
    hook = subscribe(database, receiver.url, "job.queued")
    with database.read() as session:
        old = webhooks.get_webhook(session, hook).secret
    add_job()
    send_due(database)
    add_job()
    with database.write() as session:
        new = webhooks.rotate_secret(session, hook).secret
    send_due(database)
    (before, first), (after, second) = receiver.got
    assert Verifier(old).verify(first, before)
    assert Verifier(new).verify(second, after)
    with pytest.raises(Exception, match="signature"):
        Verifier(old).verify(second, after)


def test_only_what_was_asked_for_is_told_and_only_to_the_tenant(
    database: Database, add_job: Any, receiver: Receiver
) -> None:
    hook = subscribe(database, receiver.url, "job.failed")
    with database.write() as session:
        get_or_create_tenant(session, "red")
    other = subscribe(database, receiver.url, tenant="red")
    add_job()
    run_job(database)
    assert [type for type, *_ in log(database, hook)] == ["job.failed"]
    assert log(database, other) == []


def test_a_webhook_of_a_job_hears_of_that_job_alone(
    database: Database, add_job: Any, receiver: Receiver
) -> None:
    new = webhooks.NewWebhook(receiver.url, webhooks.EVENTS)
    mine, _ = add_job(webhook=new), add_job()
    run_job(database)
    run_job(database)
    send_due(database)
    assert receiver.types() == ["job.queued", "job.validating", "job.failed"]
    assert {json.loads(body)["data"]["job_id"] for _, body in receiver.got} == {mine.id}


def test_what_is_rolled_back_is_not_told(database: Database, add_job: Any) -> None:
    hook = subscribe(database, "http://127.0.0.1:1/")
    job = add_job()
    try:
        with database.write() as session:
            jobs.request_cancel(session, job.id)
            raise InterruptedError
    except InterruptedError:
        pass
    assert [type for type, *_ in log(database, hook)] == ["job.queued"]


def test_old_deliveries_go_and_those_of_a_deleted_job_too(
    database: Database, add_job: Any, receiver: Receiver
) -> None:
    hook = subscribe(database, receiver.url, "job.queued")
    first = add_job(webhook=webhooks.NewWebhook(receiver.url, webhooks.EVENTS))
    add_job()
    send_due(database)
    waits = add_job()
    assert len(log(database, hook)) == 3
    with database.write() as session:
        webhooks.forget_job(session, first.id)
        assert webhooks.webhook_of(session, first.id) is None
    assert len(log(database, hook)) == 2
    with database.write() as session:
        webhooks.forget_old(session, "default", keep_s=-1)
    # What is still to be told is not old.
    with database.read() as session:
        (left,) = webhooks.list_deliveries(session, hook).deliveries
    assert left.job_id == waits.id
