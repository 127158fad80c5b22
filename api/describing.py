"""What callers say of a job, a model or a data set, and how lists of these are asked for."""

import json
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from api.text import WITHOUT_NUL, Moment
from jobstore.listing import Sort, Which

MAX_LABELS = 32
MAX_METADATA_BYTES = 16_384

# No control characters; a key has no colon, because a filter is written KEY:VALUE.
_KEY, _VALUE = r"[^\x00-\x1f\x7f:]{1,64}", r"[^\x00-\x1f\x7f]{0,256}"


def _short(document: dict[str, Any]) -> dict[str, Any]:
    size = len(json.dumps(document, ensure_ascii=False).encode())
    if size > MAX_METADATA_BYTES:
        raise ValueError(f"it takes {size} bytes as JSON, {MAX_METADATA_BYTES} are allowed")
    return document


Name = Annotated[str, Field(min_length=1, max_length=200, pattern=WITHOUT_NUL)]
Labels = Annotated[
    dict[Annotated[str, Field(pattern=f"^{_KEY}$")], Annotated[str, Field(pattern=f"^{_VALUE}$")]],
    Field(
        max_length=MAX_LABELS,
        description=f"Short texts by which lists are filtered: {MAX_LABELS} at most, keys of 64 "
        "characters without a colon, values of 256.",
        examples=[{"project": "traffic-signs"}],
    ),
]
Metadata = Annotated[
    dict[str, Any],
    AfterValidator(_short),
    Field(
        description="Any JSON object of yours, shown as it is; "
        f"{MAX_METADATA_BYTES:,} bytes at most.",
        examples=[{"commit": "77eac3d", "run": 12}],
    ),
]


class Described(BaseModel):
    """What may be said of something new; all of it can be changed later."""

    model_config = ConfigDict(extra="forbid")

    name: Name | None = Field(None, examples=["LeNet at a tenth"])
    labels: Labels = {}
    metadata: Metadata = {}

    def said(self) -> dict[str, Any]:
        """Return it as `jobstore.labels.describe` takes it."""
        return self.model_dump(include=set(Described.model_fields))


class Description(BaseModel):
    """Changes of what is said of something; each field that is sent replaces the old one whole."""

    model_config = ConfigDict(extra="forbid")

    name: Name | None = Field(None, examples=["LeNet at a tenth"], description="Null: none.")
    labels: Labels = {}
    metadata: Metadata = {}

    def changes(self) -> dict[str, Any]:
        """Return the fields that were sent."""
        return self.model_dump(exclude_unset=True)


_Label = Annotated[str, Field(pattern=f"^{_KEY}:{_VALUE}$")]


class ListQuery(BaseModel):
    """What the lists of jobs, models and data sets have in common."""

    model_config = ConfigDict(extra="forbid")

    label: list[_Label] = Field(
        [],
        max_length=MAX_LABELS,
        description="KEY:VALUE; of several all must be there.",
        examples=[["project:traffic-signs"]],
    )
    created_after: Moment | None = Field(None, description="At this time or after it.")
    created_before: Moment | None = None
    sort: Sort = Field(
        Sort.NEWEST,
        description="By name, what has none counts as an empty one; a minus turns the order round.",
    )
    limit: int = Field(20, ge=1, le=100)
    cursor: str | None = Field(
        None, description="The `next` of the page before, which was sorted alike."
    )

    def which(self) -> Which:
        """Return it as `jobstore.listing` takes it."""
        labels = tuple(
            (key, value) for key, _, value in (each.partition(":") for each in self.label)
        )
        return Which(
            labels,
            self.created_after,
            self.created_before,
            self.sort,
            self.limit,
            self.cursor,
        )

    def filters(self) -> dict[str, Any]:
        """Return the filters that only this list has."""
        return self.model_dump(exclude=set(ListQuery.model_fields))
