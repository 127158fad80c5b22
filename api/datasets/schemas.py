"""How the API shows a data set."""

from datetime import datetime
from typing import Any

from pydantic import AliasPath, BaseModel, Field

from api.sources.schemas import SourceView
from api.views import Known, LinkedView
from jobstore.states import FileState


class ArrayView(BaseModel):
    """One array of a data set."""

    dtype: str = Field(examples=["uint8"])
    shape: list[int] = Field(examples=[[60000, 28, 28]])


class DatasetView(LinkedView):
    """An uploaded data set."""

    id: str = Field(examples=["dst_0197f3a2c5d87c3e9b1a4f60d2e8b7c1"])
    created_at: datetime
    name: str | None
    labels: dict[str, str]
    metadata: dict[str, Any] = Field(validation_alias="notes")
    filename: str
    arrays: dict[str, ArrayView] = Field(validation_alias=AliasPath("summary", "arrays"))
    state: FileState = Field(description="A file that lies elsewhere is fetched first.")
    source: SourceView | None = Field(description="Where it was fetched from, if it was.")
    sha256: Known[str] = Field(description="Null before it has been fetched; so are the bytes.")
    bytes: Known[int]

    def _path(self) -> str:
        return f"/datasets/{self.id}"


class DatasetPage(BaseModel):
    """Some data sets; `next` goes back as `cursor`."""

    data: list[DatasetView]
    has_more: bool
    next: str | None
