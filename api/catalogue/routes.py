"""`GET /architectures`, `/methods`, `/attacks`: what may be asked for."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from api.problems import documented
from api.router import Router
from api.services import ServicesDep
from api.text import PathText
from jobstore.catalogue import get_entry, list_entries


class EntryView(BaseModel):
    """One thing that may be asked for."""

    model_config = ConfigDict(extra="allow")

    name: str
    description: str


class EntryList(BaseModel):
    """All entries of a kind; none until a worker has started."""

    data: list[EntryView]
    has_more: bool = False
    next: None = None


def _routes(kind: str, plural: str, contents: str) -> Router:
    router = Router(tags=[plural])

    @router.get(
        f"/{plural}",
        summary=f"List the {plural}",
        description=f"Each with {contents}.",
        response_model=EntryList,
    )
    def list_(services: ServicesDep) -> dict[str, Any]:
        with services.database.read() as session:
            return {"data": [row.document for row in list_entries(session, kind)]}

    @router.get(
        f"/{plural}/{{name}}",
        summary=f"Get one of the {plural}",
        description=f"With {contents}.",
        response_model=EntryView,
        responses=documented("not_found", "invalid_value"),
    )
    def get(name: PathText, services: ServicesDep) -> dict[str, Any]:
        with services.database.read() as session:
            return get_entry(session, kind, name).document

    return router


router = Router()
for kind, plural, contents in (
    ("architecture", "architectures", "its input shape and its tensors by name and shape"),
    ("method", "methods", "the JSON Schema of its job spec"),
    ("attack", "attacks", "the JSON Schema of its options"),
):
    router.routes += _routes(kind, plural, contents).routes
