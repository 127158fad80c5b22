"""Webhooks as a receiver sees them: signed, in order, repeated, and never sent astray."""

import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from sqlalchemy import update
from standardwebhooks import Webhook as Verifier

from jobstore import deliveries, jobs, leases, uploads, webhooks
from jobstore.database import Database
from jobstore.destinations import Destinations
from jobstore.dialects import clock, now
from jobstore.states import JobState
from jobstore.tables import Job, WebhookDelivery
from jobstore.tenants import get_or_create_tenant
from worker import posting
from worker.posting import Poster
from worker.webhooks import Sender

LOOPBACK = Destinations([], ["127.0.0.0/8"])


class Receiver:
    """A server that answers by `statuses`, the last for ever, and keeps what it was sent."""

    def __init__(self) -> None:
        self.statuses = [204]
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.busy: Callable[[], object] = lambda: None
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((dict(self.headers.items()), body))
                receiver.busy()
                statuses = receiver.statuses
                self.send_response(statuses.pop(0) if len(statuses) > 1 else statuses[0])
                self.send_header("Location", f"{receiver.url}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"

    def types(self) -> list[str]:
        return [json.loads(body)["type"] for _, body in self.got]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def add_job(database: Database) -> Callable[..., Job]:
    """Queues a job."""
    upload = {"filename": "f", "summary": {}, "sha256": "a" * 64, "bytes": 1}
    model = {"format": "torch", "architecture": "lenet", "normalization": None, **upload}

    def add(**changes: Any) -> Job:
        with database.write() as session:
            files = {
                "model": uploads.create_model(session, **model),
                "dataset": uploads.create_dataset(session, **upload),
            }
            spec = {"method": "atmc"}
            return jobs.create_job(
                session, spec=spec, max_attempts=3, time_limit_s=60, **files, **changes
            )

    return add


def subscribe(database: Database, url: str, *events: str, tenant: str = "default") -> str:
    new = webhooks.NewWebhook(url, events or webhooks.EVENTS)
    with database.of(tenant).write() as session:
        return webhooks.create_webhook(session, new).id


def sender(database: Database, destinations: Destinations = LOOPBACK, **options: Any) -> Sender:
    return Sender(database, Poster(destinations, **options), threading.Event())


def send_due(database: Database, using: Sender | None = None) -> int:
    """Send all that is due now, one after the other; returns how many tries that took."""
    using = using or sender(database)
    count = 0
    while due := using.claim(8):
        for outgoing in due:
            using.send(outgoing)
            count += 1
    return count


def make_due(database: Database) -> None:
    """Let the time pass until the next try."""
    with database.write() as session:
        waits = update(WebhookDelivery).where(WebhookDelivery.due_at.is_not(None))
        session.execute(waits.values(due_at=clock(-1)))


def log(database: Database, webhook_id: str) -> list[tuple[str, list[int | None], bool]]:
    """Each delivery's type, the statuses of its tries, and whether it waits; oldest first."""
    with database.read() as session:
        found = webhooks.list_deliveries(session, webhook_id).deliveries[::-1]
        return [
            (d.type, [a.status for a in webhooks.list_attempts(session, d.id)], bool(d.due_at))
            for d in found
        ]


def run_job(database: Database) -> None:
    """Claim the oldest job and have it fail."""
    with database.write() as session:
        claimed = leases.claim(session, "tester", lease_s=60)
        assert claimed is not None
        error = leases.JobError("time_limit", "too long")
        leases.finish(session, claimed[1], JobState.FAILED, error=error)


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


def test_what_fails_is_tried_again_ever_later_and_holds_back_what_follows(
    database: Database, add_job: Any, receiver: Receiver
) -> None:
    hook = subscribe(database, receiver.url)
    receiver.statuses = [500, 503, 200]
    first = add_job()
    run_job(database)
    add_job()
    assert send_due(database) == 2  # The first job waits for its first event, the other does not.
    waits = []
    while log(database, hook)[0][2]:
        with database.read() as session:
            delivery = webhooks.list_deliveries(session, hook).deliveries[-1]
            waits.append((delivery.due_at - now(session)).total_seconds())
            assert delivery.job_id == first.id
        make_due(database)
        send_due(database)
    assert receiver.types()[0] == "job.queued"
    told = [b for _, b in receiver.got if json.loads(b)["data"]["job_id"] == first.id]
    assert [json.loads(body)["type"] for body in told][-2:] == ["job.validating", "job.failed"]
    # Five seconds, give or take a fifth; the same id and body each time.
    assert 3 < waits[0] < 6.1
    assert len(set(told)) == 3


def test_the_schedule_goes_over_hours() -> None:
    assert len(deliveries.RETRY_AFTER_S) >= 6
    assert 12 * 3600 < sum(deliveries.RETRY_AFTER_S) < 48 * 3600
    assert list(deliveries.RETRY_AFTER_S) == sorted(deliveries.RETRY_AFTER_S)


def give_up(database: Database) -> None:
    for _ in range(len(deliveries.RETRY_AFTER_S) + 1):
        make_due(database)
        send_due(database)


def test_a_webhook_that_always_fails_is_switched_off_and_the_others_are_told(
    database: Database, add_job: Any, receiver: Receiver
) -> None:
    broken = subscribe(database, "http://127.0.0.1:1/", "job.queued")
    well = subscribe(database, receiver.url, "webhook.disabled")
    for count in range(1, deliveries.MAX_FAILED + 1):
        add_job()
        give_up(database)
        with database.read() as session:
            webhook = webhooks.get_webhook(session, broken)
        assert webhook.failed_deliveries == count
        assert (webhook.disabled_at is not None) == (count == deliveries.MAX_FAILED)
    assert "deliveries in a row failed" in webhook.disabled_reason
    send_due(database)
    (told,) = [json.loads(body) for _, body in receiver.got]
    assert told["type"] == "webhook.disabled"
    assert told["data"]["webhook_id"] == broken
    # It is told nothing more, until it is switched on again.
    add_job()
    assert len(log(database, broken)) == deliveries.MAX_FAILED
    with database.write() as session:
        webhooks.enable(session, webhooks.get_webhook(session, broken))
    add_job()
    assert len(log(database, broken)) == deliveries.MAX_FAILED + 1
    assert [type for type, *_ in log(database, well)] == ["webhook.disabled"]


def test_a_success_in_between_keeps_a_webhook_on(
    database: Database, add_job: Any, receiver: Receiver
) -> None:
    hook = subscribe(database, receiver.url, "job.queued")
    for number in range(2 * deliveries.MAX_FAILED):
        receiver.statuses = [500 if number % 2 == 0 else 200]
        add_job()
        give_up(database)
    with database.read() as session:
        assert webhooks.get_webhook(session, hook).disabled_at is None


def test_a_receiver_that_is_gone_is_believed(
    database: Database, add_job: Any, receiver: Receiver
) -> None:
    hook = subscribe(database, receiver.url, "job.queued")
    receiver.statuses = [410]
    add_job()
    assert send_due(database) == 1
    with database.read() as session:
        assert "410" in webhooks.get_webhook(session, hook).disabled_reason


def test_a_delivery_can_be_asked_for_again(
    database: Database, add_job: Any, receiver: Receiver
) -> None:
    hook = subscribe(database, receiver.url, "job.queued")
    receiver.statuses = [500]
    add_job()
    give_up(database)
    receiver.statuses = [200]
    with database.write() as session:
        delivery = webhooks.list_deliveries(session, hook).deliveries[0]
        assert delivery.given_up_at is not None
        webhooks.redeliver(session, hook, delivery.id)
    assert send_due(database) == 1
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    (_, statuses, waits) = log(database, hook)[0]
    assert statuses == [500] * (len(deliveries.RETRY_AFTER_S) + 1) + [200]
    assert not waits


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


def test_a_redirect_is_not_followed(database: Database, add_job: Any, receiver: Receiver) -> None:
    hook = subscribe(database, receiver.url, "job.queued")
    receiver.statuses = [307]
    add_job()
    assert send_due(database) == 1
    assert len(receiver.got) == 1
    with database.read() as session:
        delivery = webhooks.list_deliveries(session, hook).deliveries[0]
        (attempt,) = webhooks.list_attempts(session, delivery.id)
    assert (attempt.status, attempt.error) == (307, "redirects are not followed")


def test_two_senders_never_send_the_same_at_once_nor_two_of_one_webhook(
    database: Database, add_job: Any, receiver: Receiver
) -> None:
    subscribe(database, receiver.url, "job.queued")
    for _ in range(3):
        add_job()
    one, two = sender(database), sender(database)
    first = one.claim(8)
    assert len(first) == 1
    assert two.claim(8) == []
    one.send(first[0])
    second = two.claim(8)
    assert len(second) == 1
    # One that died with a delivery in its hands is overtaken, and what it says late is not heard.
    with database.write() as session:
        session.execute(update(WebhookDelivery).values(held_until=clock(-1)))
    (again,) = [taken for taken in one.claim(8) if taken.id == second[0].id]
    one.send(again)
    with database.write() as session:
        late = deliveries.Outcome(status=500, error=None, seconds=0.1)
        deliveries.record(session, second[0], late)
    with database.read() as session:
        assert session.get_one(WebhookDelivery, again.id).delivered_at is not None


def test_one_with_much_to_hear_keeps_back_no_other(database: Database, add_job: Any) -> None:
    subscribe(database, "http://a.example/", "job.queued")
    for _ in range(100):
        add_job()
    other = subscribe(database, "http://b.example/", "job.queued")
    add_job()
    assert other in {outgoing.webhook_id for outgoing in sender(database).claim(8)}


def error_of(database: Database, add_job: Any, url: str, using: Sender) -> str:
    """Why a delivery to the URL was not made."""
    hook = subscribe(database, url, "job.queued")
    add_job()
    assert send_due(database, using) == 1
    with database.write() as session:
        delivery = webhooks.list_deliveries(session, hook).deliveries[0]
        (attempt,) = webhooks.list_attempts(session, delivery.id)
        webhooks.delete_webhook(session, hook)
    assert attempt.status is None
    return str(attempt.error)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "169.254.169.254"],
)
def test_a_name_that_leads_inside_is_not_called(
    database: Database, add_job: Any, receiver: Receiver, address: str
) -> None:
    url = receiver.url.replace("127.0.0.1", "hooks.example.com")
    inward = sender(database, Destinations([], []), resolve=lambda host, port: [address])
    assert "not allowed" in error_of(database, add_job, url, inward)
    assert receiver.got == []


def test_a_name_with_one_address_inside_is_not_called_at_all(
    database: Database, add_job: Any, receiver: Receiver
) -> None:
    url = receiver.url.replace("127.0.0.1", "hooks.example.com")
    mixed = sender(database, resolve=lambda host, port: ["127.0.0.1", "10.0.0.1"])
    assert "not allowed" in error_of(database, add_job, url, mixed)
    assert receiver.got == []


def test_a_name_that_changes_between_check_and_connection_leads_nowhere_else(
    database: Database, add_job: Any, receiver: Receiver
) -> None:
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])
    asked: list[str] = []

    def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return next(answers)

    hook = subscribe(database, receiver.url.replace("127.0.0.1", "hooks.example.com"))
    add_job()
    using = sender(database, resolve=rebinding)
    assert send_due(database, using) == 1
    # Asked once; connected to what was answered then, under the name.
    assert asked == ["hooks.example.com"]
    assert receiver.got[0][0]["Host"].startswith("hooks.example.com:")
    add_job()
    assert send_due(database, using) == 1
    assert len(receiver.got) == 1
    assert [statuses for _, statuses, _ in log(database, hook)] == [[204], [None]]


def test_a_name_that_does_not_resolve_is_a_failed_try(database: Database, add_job: Any) -> None:
    def unknown(host: str, port: int) -> list[str]:
        raise socket.gaierror("unknown")

    using = sender(database, resolve=unknown)
    assert "no connection" in error_of(database, add_job, "http://a.example/", using)


def test_an_operator_s_list_of_hosts_holds_for_webhooks_that_are_there(
    database: Database, add_job: Any, receiver: Receiver
) -> None:
    using = sender(database, Destinations(["hooks.example.com"], ["127.0.0.0/8"]))
    assert "operator" in error_of(database, add_job, receiver.url, using)
    assert receiver.got == []


@contextmanager
def dripping() -> Iterator[str]:
    """A receiver that sends a byte now and then and never an answer."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def drip() -> None:
            connection, _ = listener.accept()
            try:
                while True:
                    connection.sendall(b"H")
                    time.sleep(0.02)
            except OSError:
                pass

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        thread.join(5)


def test_a_receiver_that_drips_is_left(
    database: Database, add_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posting, "WHOLE_S", 0.3)
    with dripping() as url:
        began = time.monotonic()
        error = error_of(database, add_job, url, sender(database))
        assert time.monotonic() - began < 5
    assert error in ("no answer in time", "no connection: RemoteProtocolError")


def test_the_proxies_of_the_environment_are_not_used(
    database: Database, add_job: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    subscribe(database, receiver.url, "job.queued")
    add_job()
    send_due(database)
    assert len(receiver.got) == 1


def test_a_slow_receiver_delays_nobody_else(
    database: Database, add_job: Any, receiver: Receiver
) -> None:
    slow, fast = Receiver(), receiver
    thread = threading.Thread(target=slow.server.serve_forever, daemon=True)
    thread.start()
    free = threading.Event()
    slow.busy = lambda: free.wait(20)
    subscribe(database, slow.url, "job.queued")
    subscribe(database, fast.url, "job.queued")
    using = sender(database)
    loop = threading.Thread(target=using.run)
    loop.start()
    for _ in range(3):
        add_job()
    deadline = time.monotonic() + 15
    while len(fast.got) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (len(slow.got), len(fast.got)) == (1, 3)
    free.set()
    using._stop.set()
    loop.join(20)
    slow.server.shutdown()
    slow.server.server_close()
    assert not loop.is_alive()


def test_the_sweep_s_process_sends_and_ends_when_told(
    database: Database,
    add_job: Any,
    receiver: Receiver,
    start: Callable[..., subprocess.Popen[bytes]],
) -> None:
    started = start("worker.sweep")
    subscribe(database, receiver.url, "job.queued")
    add_job()
    deadline = time.monotonic() + 30
    while not receiver.got and time.monotonic() < deadline:
        time.sleep(0.05)
    assert receiver.types() == ["job.queued"]
    started.send_signal(signal.SIGTERM)
    assert started.wait(10) == 0
