"""What is not delivered is tried again, given up, and asked for again."""

import json
from typing import Any

from jobstore import deliveries, webhooks
from jobstore.database import Database
from jobstore.dialects import now
from tests.keeper.webhooks.conftest import (
    Receiver,
    give_up,
    log,
    make_due,
    run_job,
    send_due,
    subscribe,
)


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
