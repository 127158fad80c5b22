"""The example's receiver acts on what is signed, once."""

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from standardwebhooks import Webhook

from atmc_client.webhooks import WebhookMessage
from examples.webhook_receiver import MOST_BYTES, receiver

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = json.dumps(
    {"type": "job.succeeded", "timestamp": "2026-01-01T00:00:00Z", "data": {"job_id": "job_1"}}
)


@pytest.fixture
def heard() -> list[WebhookMessage]:
    return []


@pytest.fixture
def url(heard: list[WebhookMessage]) -> Iterator[str]:
    server = receiver(SECRET, heard.append, port=0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def signed(id: str = "msg_1", by: str = SECRET, age: timedelta = timedelta()) -> dict[str, str]:
    at = datetime.now(UTC) - age
    return {
        "webhook-id": id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(by).sign(id, at, BODY),
    }


def test_a_signed_message_is_acted_on_once(url: str, heard: list[WebhookMessage]) -> None:
    for headers in (signed(), signed(), signed("msg_2")):
        assert httpx.post(url, content=BODY, headers=headers).status_code == 204
    # The answer comes first, and then what is done.
    deadline = time.monotonic() + 10
    while len(heard) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert [message.data["job_id"] for message in heard] == ["job_1"] * 2


def test_what_is_not_signed_or_old_or_long_is_not(url: str, heard: list[WebhookMessage]) -> None:
    other = "whsec_" + "A" * 32
    for headers in ({}, signed(by=other), signed(age=timedelta(minutes=10))):
        assert httpx.post(url, content=BODY, headers=headers).status_code == 401
    assert httpx.post(url, content=BODY + " ", headers=signed()).status_code == 401
    assert httpx.post(url, content=bytes(MOST_BYTES + 1), headers=signed()).status_code == 413
    assert heard == []
