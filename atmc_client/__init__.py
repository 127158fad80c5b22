"""The Python client of the compression service; `atmc` is its command line.

from atmc_client import Client

client = Client("http://127.0.0.1:8000")
job = client.submit("model.safetensors", "lenet", "mnist.npz", {"method": "atmc", ...})
job = client.wait(job["id"])
client.download(job["id"], "smaller")
"""

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

__all__ = [
    "ApiError",
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
]
