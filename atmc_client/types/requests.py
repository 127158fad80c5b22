# Written from the API's OpenAPI document by `make generate`.
"""What stands in requests, field by field."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypeAlias, TypedDict


class Description(TypedDict):
    """Changes of what is said of something; each field that is sent replaces the old one whole."""

    name: NotRequired[str | None]
    """Null: none."""

    labels: NotRequired[dict[str, str]]
    """Short texts by which lists are filtered: 32 at most, keys of 64 characters without a colon, values of 256."""

    metadata: NotRequired[dict[str, Any]]
    """Any JSON object of yours, shown as it is; 16,384 bytes at most."""


class NewResults(TypedDict):
    """A folder elsewhere that a job's files are to be put into, once it has succeeded."""

    uri: str
    """`s3://BUCKET/FOLDER`: each file is put to `FOLDER/JOB/NAME`."""

    connection: NotRequired[str | None]


class NewSource(TypedDict):
    """A file that lies elsewhere; it is fetched once, and is the one that lies there now."""

    connection: NotRequired[str | None]
    """Whose credentials to use; needed only where several have the URI."""

    etag: NotRequired[str | None]
    """It is refused with another ETag."""

    version: NotRequired[str | None]
    """The version of an object on S3."""

    sha256: NotRequired[str | None]
    """It is refused with other bytes."""

    uri: str
    """`s3://BUCKET/KEY` or `https://...`, in one of `GET /connections`; of a data set also a folder of Parquet files on S3."""


class NewWebhook(TypedDict):
    """A webhook to make: its URL, and the events that it is told."""

    url: str
    """https or http, of a host that the service may call."""

    events: NotRequired[
        list[
            Literal[
                "job.queued",
                "job.validating",
                "job.running",
                "job.succeeded",
                "job.failed",
                "job.cancelled",
                "sweep.succeeded",
                "sweep.failed",
                "sweep.cancelled",
                "webhook.disabled",
                "key.expiring",
            ]
        ]
    ]


Sort: TypeAlias = Literal["-created_at", "created_at", "name", "-name"]
"""The order of a list; ids sort by the time they were made."""
