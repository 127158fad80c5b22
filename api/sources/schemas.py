"""How a request names a file that lies elsewhere, and how the API shows what comes of it."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from jobstore.connections import MAX_URI

_TEXT = r"^[\x20-\x7e]+$"


_Uri = Annotated[
    str,
    Field(
        max_length=MAX_URI,
        pattern=r"^(s3|https)://[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$",
        description="`s3://BUCKET/KEY` or `https://...`, in one of `GET /connections`; of a data "
        "set also a folder of Parquet files on S3.",
        examples=["s3://models/lenet.safetensors"],
    ),
]


class Pinned(BaseModel):
    """What may be said of a file that lies elsewhere, beside its URI."""

    model_config = ConfigDict(extra="forbid")

    connection: str | None = Field(
        None,
        max_length=64,
        pattern=_TEXT,
        description="Whose credentials to use; needed only where several have the URI.",
    )
    etag: str | None = Field(
        None, max_length=1024, pattern=_TEXT, description="It is refused with another ETag."
    )
    version: str | None = Field(
        None, max_length=1024, pattern=_TEXT, description="The version of an object on S3."
    )
    sha256: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="It is refused with other bytes."
    )


class NewSource(Pinned):
    """A file that lies elsewhere; it is fetched once, and is the one that lies there now."""

    uri: _Uri


class MaySource(Pinned):
    """The same beside another way to name a file."""

    uri: _Uri | None = None

    def source(self) -> NewSource | None:
        """Return the file that lies elsewhere, if one is named."""
        if self.uri is None:
            return None
        return NewSource(**self.model_dump(include=set(NewSource.model_fields)))


class TransferError(BaseModel):
    """Why a try to fetch or to put something failed."""

    code: str
    message: str


class SourceView(BaseModel):
    """Where a file came from, or comes from."""

    uri: str
    connection: str
    etag: str | None = Field(description="That of the object as it was named; null for a folder.")
    version: str | None
    total_bytes: int | None = Field(description="Null where nobody tells before it has come.")
    fetched_bytes: int
    tries: int = Field(description="Tries that have failed.")
    error: TransferError | None = Field(description="Of the last of these.")


class NewResults(BaseModel):
    """A folder elsewhere that a job's files are to be put into, once it has succeeded."""

    model_config = ConfigDict(extra="forbid")

    uri: str = Field(
        max_length=MAX_URI,
        pattern=r"^s3://[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$",
        description="`s3://BUCKET/FOLDER`: each file is put to `FOLDER/JOB/NAME`.",
        examples=["s3://results/nightly"],
    )
    connection: str | None = Field(None, max_length=64, pattern=_TEXT)


class ResultsView(BaseModel):
    """Where a job's files are put, and what has come of it."""

    uri: str = Field(description="The folder of this job's files.")
    connection: str
    state: Literal["waiting", "delivered", "failed"]
    tries: int
    error: TransferError | None = Field(description="Why the last try failed.")
    files: list[str]
    delivered_at: datetime | None


class ConnectionView(BaseModel):
    """A connection of the caller's tenant."""

    name: str
    kind: Literal["s3", "https"]
    read: list[str] = Field(description="What may be fetched: these, and what lies below them.")
    write: list[str] = Field(description="Where results may be put.")


class ConnectionList(BaseModel):
    """The connections that the operator has made for the tenant."""

    data: list[ConnectionView]
