"""How the API shows an upload, and how a request names one instead of a file."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from api.describing import Described, ListQuery
from api.problems import Problem
from api.sources.schemas import MaySource, NewSource
from api.text import WITHOUT_NUL
from api.views import LinkedView
from jobstore.incoming import URL_LIFETIME_S
from jobstore.states import FileState


class ByReference(Described, MaySource):
    """A file that was uploaded before, by `POST /uploads` or `.../direct`, or lies elsewhere."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"upload_id": "upl_0197f3a2c5d87c3e9b1a4f60d2e8b7c1"}]},
    )

    upload_id: str | None = Field(
        None,
        max_length=255,
        examples=["upl_0197f3a2c5d87c3e9b1a4f60d2e8b7c1"],
        pattern=r"^[\w]+$",
    )

    def upload(self) -> str | None:
        """Return the id of the upload; None: it lies elsewhere.

        Raises `missing_field` unless one is named, `invalid_value` for what does not go with it.
        """
        if self.upload_id is None:
            if self.uri is None:
                raise Problem("missing_field", "Give 'upload_id' or 'uri'.", "upload_id")
            return None
        for name in NewSource.model_fields:
            if getattr(self, name) is not None:
                detail = f"{name!r} is for a file that lies elsewhere: leave it or 'upload_id' out."
                raise Problem("invalid_value", detail, name)
        return self.upload_id


class UploadQuery(ListQuery):
    """Which uploaded networks or data sets are listed."""

    q: str | None = Field(
        None,
        max_length=200,
        pattern=WITHOUT_NUL,
        description="A part of the name, the file's name or the id.",
    )
    state: FileState | None = None
    sha256: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="Only what has these bytes."
    )


class UploadView(LinkedView):
    """An upload that is on its way."""

    id: str = Field(examples=["upl_0197f3a2c5d87c3e9b1a4f60d2e8b7c1"])
    filename: str
    bytes: int
    received: int = Field(
        description="Bytes that have arrived; those of a direct upload are not counted."
    )
    sha256: str | None = Field(description="The digest that a direct upload must have.")
    created_at: datetime
    expires_at: datetime

    def _path(self) -> str:
        return f"/uploads/{self.id}"


class NewDirectUpload(BaseModel):
    """A file that its owner puts into the store; it is checked against this before its use."""

    model_config = ConfigDict(extra="forbid")

    filename: str = Field("", max_length=255, pattern=WITHOUT_NUL, examples=["net.safetensors"])
    bytes: int = Field(gt=0, lt=2**63, examples=[250_000])
    sha256: str = Field(pattern="^[0-9a-f]{64}$", examples=["0123456789abcdef" * 4])


class DirectUpload(UploadView):
    """Where to PUT the file."""

    url: str = Field(
        description="Takes one PUT of a file of the announced length, for "
        f"{URL_LIFETIME_S:.0f} seconds at most."
    )
    headers: dict[str, str] = Field(
        description="The headers that the PUT must have, beside its Content-Length.",
        examples=[{"If-None-Match": "*"}],
    )
