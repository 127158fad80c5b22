"""The Python client of the compression service; `atmc` is its command line.

from atmc_client import Client

client = Client("http://127.0.0.1:8000")
job = client.submit("model.safetensors", "lenet", "mnist.npz", {"method": "atmc", ...})
job = client.wait(job["id"])
client.download(job["id"], "smaller")
"""

from typing import TYPE_CHECKING, Any

from atmc_client.client import Client
from atmc_client.errors import (
    ApiError,
    Conflict,
    DigestMismatch,
    InvalidRequest,
    NotAuthorized,
    NotFound,
    NoToken,
    RateLimited,
    ServerError,
    ServerUnreachable,
)
from atmc_client.webhooks import WebhookMessage, WebhookNotVerified, verify_webhook

if TYPE_CHECKING:
    from atmc_client.aio import AsyncClient

__all__ = [
    "ApiError",
    "AsyncClient",
    "Client",
    "Conflict",
    "DigestMismatch",
    "InvalidRequest",
    "NoToken",
    "NotAuthorized",
    "NotFound",
    "RateLimited",
    "ServerError",
    "ServerUnreachable",
    "WebhookMessage",
    "WebhookNotVerified",
    "verify_webhook",
]


def __getattr__(name: str) -> Any:
    # The command line does not wait for asyncio's import.
    if name == "AsyncClient":
        from atmc_client.aio import AsyncClient

        return AsyncClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
