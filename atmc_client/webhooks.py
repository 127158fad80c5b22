"""Tells messages of the service from others', by the signature of Standard Webhooks.

See https://www.standardwebhooks.com; their packages do the same.
"""

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TOLERANCE_S = 300.0
"""How far a message's time may be from the receiver's, in seconds."""

_PREFIX, _VERSION = "whsec_", "v1"


class WebhookNotVerified(Exception):
    """The message is not to be believed; answer it with 401."""


@dataclass(frozen=True)
class WebhookMessage:
    """A message that the service has signed.

    Attributes:
        id: the same if a message comes again, as it may: act on each once.
        type: what happened, `job.succeeded` for instance.
        timestamp: when, RFC 3339.
        data: of a job `job_id`, `state` and more, by the type.
    """

    id: str
    type: str
    timestamp: str
    data: dict[str, Any]


def verify_webhook(
    body: bytes,
    headers: Mapping[str, str],
    secret: str | Sequence[str],
    *,
    tolerance_s: float = TOLERANCE_S,
) -> WebhookMessage:
    """Return the message of a request that a webhook's receiver got.

    Example:
        ```python
        try:
            message = verify_webhook(request.body, request.headers, secret)
        except WebhookNotVerified:
            return 401
        ```

    Args:
        body: the request's body, byte for byte.
        headers: the request's headers; their names in any case.
        secret: the webhook's `secret` (`whsec_...`), or several, of which one has to fit, while
            the secret is changed.
        tolerance_s: how old a message may be, in seconds; older ones may be recordings.

    Raises:
        WebhookNotVerified: the signature does not fit, or the time does not, or they are missing.
        ValueError: a secret is none.
    """
    keys = [_key(each) for each in ([secret] if isinstance(secret, str) else secret)]
    given = {name.lower(): value for name, value in headers.items()}
    try:
        id_, sent_at, signatures = (
            given[f"webhook-{name}"] for name in ("id", "timestamp", "signature")
        )
        age = time.time() - int(sent_at)
    except (KeyError, ValueError) as error:
        raise WebhookNotVerified("the headers of a signed message are missing") from error
    if abs(age) > tolerance_s:
        raise WebhookNotVerified(f"the message is {age:.0f} s old, or a clock is wrong")
    signed = f"{id_}.{sent_at}.".encode() + body
    listed = [each.partition(",") for each in signatures.split()]
    made = [base64.b64encode(hmac.digest(key, signed, hashlib.sha256)) for key in keys]
    if not any(
        hmac.compare_digest(signature.encode(), own)
        for version, _, signature in listed
        if version == _VERSION
        for own in made
    ):
        raise WebhookNotVerified("the signature does not fit: another secret, or an altered body")
    return _message(id_, body)


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"a webhook's secret is {_PREFIX} and base64") from error
    if not key:
        raise ValueError("a webhook's secret is empty")
    return key


def _message(id_: str, body: bytes) -> WebhookMessage:
    try:
        match json.loads(body):
            case {"type": str(type_), "timestamp": str(timestamp), "data": dict(data)}:
                return WebhookMessage(id_, type_, timestamp, data)
    except ValueError as error:
        raise WebhookNotVerified("it is signed, but no JSON") from error
    raise WebhookNotVerified("it is signed, but no message of this service")
