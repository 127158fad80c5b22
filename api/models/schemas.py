"""What a model looks like from outside."""

from datetime import datetime
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from api.uploads.schemas import ByUpload
from jobstore.tables import Model

_Mean = Annotated[float, Field(allow_inf_nan=False)]
_Deviation = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Normalization(BaseModel):
    """Mean and deviation a channel, applied to images in [0, 1] inside the network."""

    model_config = ConfigDict(extra="forbid")

    mean: list[_Mean] = Field(min_length=1, examples=[[0.1307]])
    std: list[_Deviation] = Field(min_length=1, examples=[[0.3081]])

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        if len(self.mean) != len(self.std):
            raise ValueError(f"{len(self.mean)} means for {len(self.std)} deviations")
        return self


class NewModelByUpload(ByUpload):
    """A network whose file has been uploaded before."""

    architecture: str = Field(examples=["lenet"])
    normalization: Normalization | None = None


class ModelView(BaseModel):
    """An uploaded network."""

    id: str = Field(examples=["mdl_0197f3a2c5d87c3e9b1a4f60d2e8b7c1"])
    created_at: datetime
    filename: str
    format: str = Field(description="By content: `safetensors`, `torch` or `onnx`.")
    architecture: str
    normalization: Normalization | None
    dimensions: dict[str, int] = Field(
        description="What the architecture leaves open, as the file has it.",
        examples=[{"num_classes": 10}],
    )
    dense_weights: int | None = Field(
        description="N, the number of weights that can be compressed; a target's `k` is at most "
        "this. Null for a network uploaded to a version that did not write it down.",
        examples=[430500],
    )
    sha256: str
    bytes: int
    links: dict[str, str]

    @classmethod
    def of(cls, model: Model) -> Self:
        """Show the model's row."""
        return cls(
            id=model.id,
            created_at=model.created_at,
            filename=model.filename,
            format=model.format,
            architecture=model.architecture,
            normalization=Normalization(**model.normalization) if model.normalization else None,
            dimensions=model.summary.get("dimensions", {}),
            dense_weights=model.summary.get("dense_weights"),
            sha256=model.sha256,
            bytes=model.bytes,
            links={"self": f"/models/{model.id}"},
        )
