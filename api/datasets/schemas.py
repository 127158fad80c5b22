"""What a data set looks like from outside."""

from datetime import datetime
from typing import Self

from pydantic import BaseModel, Field

from jobstore.tables import Dataset


class ArrayView(BaseModel):
    """One array of a data set."""

    dtype: str = Field(examples=["uint8"])
    shape: list[int] = Field(examples=[[60000, 28, 28]])


class DatasetView(BaseModel):
    """An uploaded data set."""

    id: str = Field(examples=["dst_0197f3a2c5d87c3e9b1a4f60d2e8b7c1"])
    created_at: datetime
    filename: str
    arrays: dict[str, ArrayView]
    sha256: str
    bytes: int
    links: dict[str, str]

    @classmethod
    def of(cls, dataset: Dataset) -> Self:
        """Show the dataset's row."""
        return cls(
            id=dataset.id,
            created_at=dataset.created_at,
            filename=dataset.filename,
            arrays=dataset.summary["arrays"],
            sha256=dataset.sha256,
            bytes=dataset.bytes,
            links={"self": f"/datasets/{dataset.id}"},
        )
