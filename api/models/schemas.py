"""How the API shows a network, and what comes beside a new one's file."""

from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import AliasPath, BaseModel, ConfigDict, Field, model_validator

from api.describing import Described
from api.sources.schemas import SourceView
from api.uploads.schemas import ByReference
from api.views import Known, LinkedView
from jobstore.states import FileState

# Images are in [0, 1], and are computed with in float32, or half of that.
_Mean = Annotated[float, Field(ge=-1000, le=1000, allow_inf_nan=False)]
_Deviation = Annotated[float, Field(ge=1e-4, le=1000, allow_inf_nan=False)]


MAX_CHANNELS = 1024


class Normalization(BaseModel):
    """Mean and deviation a channel, applied to images in [0, 1] inside the network."""

    model_config = ConfigDict(extra="forbid")

    mean: list[_Mean] = Field(min_length=1, max_length=MAX_CHANNELS, examples=[[0.1307]])
    std: list[_Deviation] = Field(min_length=1, max_length=MAX_CHANNELS, examples=[[0.3081]])

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        if len(self.mean) != len(self.std):
            raise ValueError(f"{len(self.mean)} means for {len(self.std)} deviations")
        return self


class NewModel(Described):
    """The fields of a network that come beside its file."""

    architecture: str = Field(examples=["lenet"])
    normalization: Normalization | None = None


class NewModelByReference(ByReference, NewModel):
    """A network whose file has been uploaded before, or lies elsewhere."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"upload_id": "upl_0197f3a2c5d87c3e9b1a4f60d2e8b7c1", "architecture": "lenet"}
            ]
        },
    )


class ModelView(LinkedView):
    """An uploaded network."""

    id: str = Field(examples=["mdl_0197f3a2c5d87c3e9b1a4f60d2e8b7c1"])
    created_at: datetime
    name: str | None
    labels: dict[str, str]
    metadata: dict[str, Any] = Field(validation_alias="notes")
    filename: str
    format: Known[str] = Field(
        description="The file's format by its content: `safetensors`, `torch` or `onnx`."
    )
    architecture: str
    normalization: Normalization | None
    dimensions: dict[str, int] = Field(
        {},
        validation_alias=AliasPath("summary", "dimensions"),
        description="The sizes that the architecture leaves open, as the file has them.",
        examples=[{"num_classes": 10}],
    )
    dense_weights: int | None = Field(
        None,
        validation_alias=AliasPath("summary", "dense_weights"),
        description="N, the number of weights that can be compressed; a target's `k` is at most "
        "this. Null for a network uploaded to a version that did not write it down.",
        examples=[430500],
    )
    state: FileState = Field(description="A file that lies elsewhere is fetched first.")
    source: SourceView | None = Field(description="Where it was fetched from, if it was.")
    sha256: Known[str] = Field(description="Null before it has been fetched; so are the bytes.")
    bytes: Known[int]

    def _path(self) -> str:
        return f"/models/{self.id}"


class ModelPage(BaseModel):
    """Some networks; `next` goes back as `cursor`."""

    data: list[ModelView]
    has_more: bool
    next: str | None
