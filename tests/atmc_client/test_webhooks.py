"""Webhooks are made by the client, and their messages known by their signature."""

import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook

from atmc_client import Client, InvalidRequest, NotFound, WebhookNotVerified, verify_webhook
from tests.atmc_client.test_reuse import SPEC

SECRET, OTHER = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_" + "A" * 32
MESSAGE = {"type": "job.succeeded", "timestamp": "2026-01-01T00:00:00Z", "data": {"job_id": "j"}}
BODY = json.dumps(MESSAGE).encode()
URL = "https://93.184.216.34/atmc"


def signed(body=BODY, secret=SECRET, age_s=0.0):
    """The headers of a message, by the authors of the standard."""
    at = datetime.now(UTC) - timedelta(seconds=age_s)
    return {
        "Webhook-Id": "msg_1",
        "Webhook-Timestamp": str(int(at.timestamp())),
        "Webhook-Signature": Webhook(secret).sign("msg_1", at, body.decode()),
    }


def test_a_signed_message_is_read():
    message = verify_webhook(BODY, signed(), SECRET)
    assert (message.id, message.type, message.data) == ("msg_1", "job.succeeded", {"job_id": "j"})
    assert verify_webhook(BODY, signed(secret=OTHER), [SECRET, OTHER]) == message
    two = signed()
    two["Webhook-Signature"] = "v1,AAAA v1a,xyz " + two["Webhook-Signature"]
    assert verify_webhook(BODY, two, SECRET) == message
    assert verify_webhook(BODY, signed(age_s=400), SECRET, tolerance_s=500) == message


# Signed as the test runs: a message grows old.
@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (BODY + b" ", signed),
        (BODY, lambda: signed(secret=OTHER)),
        (BODY, lambda: signed(age_s=400)),
        (BODY, lambda: signed(age_s=-400)),
        (BODY, lambda: signed() | {"Webhook-Id": "msg_2"}),
        (BODY, lambda: signed() | {"Webhook-Timestamp": str(int(time.time()) + 1)}),
        (BODY, lambda: signed() | {"Webhook-Timestamp": "now"}),
        (BODY, lambda: signed() | {"Webhook-Signature": "v1"}),
        (BODY, lambda: signed() | {"Webhook-Signature": signed()["Webhook-Signature"][:-4]}),
        (BODY, lambda: signed() | {"Webhook-Signature": "v2" + signed()["Webhook-Signature"][2:]}),
        (BODY, dict),
        (b"[]", lambda: signed(b"[]")),
        (b"no json", lambda: signed(b"no json")),
    ],
)
def test_what_is_altered_old_or_another_s_is_not(body, headers):
    with pytest.raises(WebhookNotVerified):
        verify_webhook(body, headers(), SECRET)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_ä", "not base64"])
def test_a_secret_that_is_none_is_the_receiver_s_own_mistake(secret):
    with pytest.raises(ValueError, match="secret"):
        verify_webhook(BODY, signed(), secret)


def test_a_webhook_is_made_changed_and_deleted(api_url):
    with Client(api_url) as client:
        made = client.create_webhook(URL, events=["job.failed"])
        assert made["secret"].startswith("whsec_")
        assert made["id"] in {each["id"] for each in client.webhooks()}
        changed = client.change_webhook(made["id"], events=["job.failed", "job.succeeded"])
        assert sorted(changed["events"]) == ["job.failed", "job.succeeded"]
        assert changed["url"] == URL
        assert client.rotate_webhook_secret(made["id"])["secret"] != made["secret"]
        assert client.get_webhook(made["id"]) == changed
        assert client.deliveries(made["id"]) == []
        with pytest.raises(NotFound):
            client.redeliver(made["id"], "dlv_" + "0" * 32)
        with pytest.raises(InvalidRequest):
            client.create_webhook("http://169.254.169.254/")
        client.delete_webhook(made["id"])
        with pytest.raises(NotFound):
            client.get_webhook(made["id"])


def test_a_job_s_own_webhook_is_told_of_it(api_url, new_files):
    with Client(api_url) as client:
        webhook = {"url": URL, "events": ["job.cancelled"]}
        job = client.submit(
            new_files / "model.safetensors",
            "digits_cnn",
            new_files / "data.npz",
            SPEC,
            webhook=webhook,
            metadata={"run": 7},
        )
        assert job["metadata"] == {"run": 7}
        own = job["webhook"]
        assert own is not None
        assert verify_webhook(BODY, signed(secret=own["secret"]), own["secret"]).type
        client.cancel(job["id"])
        (delivery,) = client.deliveries(own["id"])
        assert client.get_delivery(own["id"], delivery["id"])["log"] == []
        assert client.redeliver(own["id"], delivery["id"])["id"] != ""
