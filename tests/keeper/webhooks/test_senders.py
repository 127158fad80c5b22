"""Several at once who send, and those who keep them waiting."""

import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import update

from jobstore import deliveries
from jobstore.database import Database
from jobstore.dialects import clock
from jobstore.tables import WebhookDelivery
from jobstore.tenants import get_or_create_tenant
from tests.bench import poll
from tests.keeper.webhooks.conftest import Receiver, hook, listening, sender, subscribe


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


def test_a_slow_receiver_delays_nobody_else(
    database: Database, add_job: Any, receiver: Receiver
) -> None:
    free = threading.Event()
    subscribe(database, receiver.url, "job.queued")
    using = sender(database)
    loop = threading.Thread(target=using.run)
    with listening() as slow:
        slow.busy = lambda: free.wait(120)
        subscribe(database, slow.url, "job.queued")
        loop.start()
        for _ in range(3):
            add_job()
        poll(lambda: (len(slow.got), len(receiver.got)) == (1, 3))
        free.set()
        using._stop.set()
        loop.join(120)
    assert not loop.is_alive()


def test_a_tenant_with_many_webhooks_delays_nobody_else(
    database: Database, add_job: Any, receiver: Receiver
) -> None:
    with database.write() as session:
        for tenant in ("green", "red"):
            get_or_create_tenant(session, tenant)
    free = threading.Event()
    using = sender(database)
    loop = threading.Thread(target=using.run)
    with listening() as mute:
        mute.busy = lambda: free.wait(120)
        for path in range(100):
            add_job(webhook=hook(f"{mute.url}/{path}", "job.queued"))
        subscribe(database, receiver.url, "job.queued", tenant="green")
        loop.start()
        most = deliveries.AT_ONCE_OF_A_TENANT
        poll(lambda: len(mute.got) == most)
        began = time.monotonic()
        add_job(database.of("green"))
        poll(lambda: receiver.got)
        # Before, eight webhooks held all eight slots, 20 seconds each.
        assert time.monotonic() - began < 5
        assert len(mute.got) == most
        free.set()
        using._stop.set()
        loop.join(120)
    assert not loop.is_alive()


def test_the_tenant_with_fewest_at_work_comes_first(database: Database, add_job: Any) -> None:
    with database.write() as session:
        get_or_create_tenant(session, "green")
    for count in range(20):
        subscribe(database, f"http://a.example/{count}", "job.queued")
    add_job()
    claimed = sender(database).claim(2)
    assert {outgoing.tenant for outgoing in claimed} == {"default"}
    green = subscribe(database, "http://b.example/", "job.queued", tenant="green")
    add_job(database.of("green"))
    assert [outgoing.webhook_id for outgoing in sender(database).claim(1)] == [green]
    # Two more, and the tenant has its four.
    assert len(sender(database).claim(8)) == deliveries.AT_ONCE_OF_A_TENANT - 2
    assert sender(database).claim(8) == []


def test_the_sweep_s_process_sends_and_ends_when_told(
    database: Database,
    add_job: Any,
    receiver: Receiver,
    start: Callable[..., subprocess.Popen[bytes]],
) -> None:
    started = start("keeper")
    subscribe(database, receiver.url, "job.queued")
    add_job()
    poll(lambda: receiver.got)
    assert receiver.types() == ["job.queued"]
    started.send_signal(signal.SIGTERM)
    assert started.wait(30) == 0
