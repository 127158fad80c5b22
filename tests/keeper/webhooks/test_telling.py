"""Who is told what: signed, in order, and only what was asked for."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from jobstore import jobs, webhooks
from jobstore.database import Database
from jobstore.deliveries import Outgoing
from jobstore.settings import Settings
from jobstore.tenants import get_or_create_tenant
from jobstore.vault import Unreadable, Vault
from keeper.posting import Poster
from keeper.webhooks import Sender, signed
from tests.keeper.webhooks.conftest import (
    LOOPBACK,
    VAULT,
    Receiver,
    log,
    run_job,
    secret_of,
    send_due,
    subscribe,
)
from tests.keeper.webhooks.conftest import hook as own_hook


def test_a_receiver_gets_signed_events_in_order(
    database: Database, add_job: Any, receiver: Receiver
) -> None:
    hook = subscribe(database, receiver.url)
    job = add_job(name="mine")
    run_job(database)
    assert send_due(database) == 3
    assert receiver.types() == ["job.queued", "job.validating", "job.failed"]
    secret = secret_of(database, hook)
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
    outgoing = Outgoing("msg_1", 1, "default", "wh_1", None, "http://a.example/", "", {})
    content = '{"data":{"name":"Größe"},"type":"job.queued"}'.encode()
    # The figure was computed with the standard library's hmac and not with the signing package.
    assert signed(outgoing, secret, content, 1_700_000_000) == {
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
    old, new = secret_of(database, hook), webhooks.new_secret()
    add_job()
    send_due(database)
    add_job()
    with database.write() as session:
        webhooks.change_secret(session, hook, VAULT.seal(new))
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
    mine, _ = add_job(webhook=own_hook(receiver.url)), add_job()
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
    first = add_job(webhook=own_hook(receiver.url))
    add_job()
    send_due(database)
    waits = add_job()
    assert len(log(database, hook)) == 3
    with database.write() as session:
        webhooks.forget_job(session, first.id)
        assert webhooks.webhook_of(session, first.id) is None
    assert len(log(database, hook)) == 2
    with database.write() as session:
        webhooks.forget_old(session, "default", keep_s=-1, limit=1000)
    # What is still to be told is not old.
    with database.read() as session:
        (left,) = webhooks.list_deliveries(session, hook).deliveries
    assert left.job_id == waits.id


def test_a_secret_lies_sealed_and_a_key_can_be_changed(
    database: Database, add_job: Any, receiver: Receiver
) -> None:
    first, second = "the key of the year before" * 2, "the key of this year" * 2
    secret, plain = webhooks.new_secret(), webhooks.new_secret()
    with database.write() as session:
        sealed = Vault([first]).seal(secret)
        new = webhooks.NewWebhook(receiver.url, ["job.queued"], sealed)
        hooks = [webhooks.create_webhook(session, new).id]
        # A version of before has left this one as it is.
        old = webhooks.NewWebhook(receiver.url, ["job.queued"], plain)
        hooks.append(webhooks.create_webhook(session, old).id)

    def lie() -> list[str]:
        with database.read() as session:
            return [webhooks.get_webhook(session, each).secret for each in hooks]

    assert secret not in lie()[0]
    both = Sender(database, Poster(LOOPBACK), Vault([second, first]), threading.Event())
    both.seal_anew()
    assert not {secret, plain} & set(lie())
    # Now the first one may go.
    alone = Sender(database, Poster(LOOPBACK), Vault([second]), threading.Event())
    assert [Vault([second]).open(each) for each in lie()] == [secret, plain]
    with pytest.raises(Unreadable, match="ATMC_SECRETS_KEY"):
        Vault([first]).open(lie()[0])
    add_job()
    assert send_due(database, alone) == 2
    for headers, body in receiver.got:
        signers = [key for key in (secret, plain) if is_signed_by(key, headers, body)]
        assert len(signers) == 1


def is_signed_by(secret: str, headers: dict[str, str], body: bytes) -> bool:
    try:
        Verifier(secret).verify(body, headers)
    except WebhookVerificationError:
        return False
    return True


def test_who_has_the_wrong_key_sends_nothing_and_says_so(
    database: Database, add_job: Any, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    hook = subscribe(database, receiver.url, "job.queued")
    add_job()
    other = Vault(["another key than the one of the API"])
    send_due(database, Sender(database, Poster(LOOPBACK), other, threading.Event()))
    assert receiver.got == []
    assert "ATMC_SECRETS_KEY" in caplog.text
    assert [statuses for _, statuses, _ in log(database, hook)] == [[None]]


def test_api_and_keeper_of_one_folder_find_one_key(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "new")
    with ThreadPoolExecutor(8) as pool:
        vaults = list(pool.map(lambda _: Vault.from_settings(settings), range(8)))
    assert {vault.open(vaults[0].seal("mine")) for vault in vaults} == {"mine"}
    (made,) = (tmp_path / "new").iterdir()
    assert made.stat().st_mode & 0o077 == 0
