"""How the API shows rows of the database."""

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, computed_field

from jobstore.idempotency import Answer

Text = TypeVar("Text", str, int)
Known = Annotated[Text | None, BeforeValidator(lambda value: value or None)]
"""A column that is empty before anybody knows what is to be in it: null to callers."""


class RowView(BaseModel):
    """A row as it is shown: `model_validate(row)` reads the fields off it by name or alias."""

    model_config = ConfigDict(
        from_attributes=True,
        validate_by_name=True,
        # A field with a default is always answered, and the OpenAPI document says so.
        json_schema_serialization_defaults_required=True,
    )


class LinkedView(RowView):
    """A row with an address of its own."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def links(self) -> dict[str, str]:
        """Paths of the row itself, as `self`, and of what belongs to it."""
        return {"self": self._path()}

    def _path(self) -> str:
        raise NotImplementedError


def created(view: LinkedView, once: dict[str, Any] | None = None) -> Answer:
    """Return the answer to a request that made the row; `once` is shown only in the first."""
    headers = {"Location": view.links["self"]}
    return Answer(201, headers, view.model_dump(mode="json"), once or {})
