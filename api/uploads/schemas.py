"""What names an upload instead of bringing a file along."""

from pydantic import BaseModel, ConfigDict, Field


class ByUpload(BaseModel):
    """A file that has been uploaded before, by `POST /uploads` or `POST /uploads/direct`."""

    model_config = ConfigDict(extra="forbid")

    upload_id: str = Field(
        max_length=255, examples=["upl_0197f3a2c5d87c3e9b1a4f60d2e8b7c1"], pattern=r"^[\w]+$"
    )
