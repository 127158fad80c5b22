"""`GET /schemas`, `GET /schemas/{name}`: the JSON Schemas of the documents that jobs make."""

from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from api.problems import documented
from api.router import Router
from api.services import ServicesDep
from api.text import PathText
from jobstore.catalogue import get_entry, list_entries

MEDIA_TYPE = "application/schema+json"

router = Router(tags=["schemas"])


class SchemaView(BaseModel):
    """A schema that is published."""

    name: str = Field(examples=["report"])
    title: str
    description: str
    links: dict[str, str]


class SchemaList(BaseModel):
    """All schemas; none until a worker has started."""

    data: list[SchemaView]
    has_more: bool = False
    next: None = None


@router.get("/schemas", summary="List the schemas")
def list_(services: ServicesDep) -> SchemaList:
    """Return what each schema describes; `links.self` is the schema itself."""
    with services.database.read() as session:
        rows = list_entries(session, "schema")
    return SchemaList(
        data=[
            SchemaView(
                name=row.name,
                title=row.document["title"],
                description=row.document["description"],
                links={"self": f"/schemas/{row.name}"},
            )
            for row in rows
        ]
    )


@router.get(
    "/schemas/{name}",
    summary="Get one of the schemas",
    response_class=JSONResponse,
    responses={
        200: {
            "description": "A JSON Schema (draft 2020-12).",
            "content": {MEDIA_TYPE: {"schema": {"type": "object"}}},
        },
        **documented("not_found", "invalid_value"),
    },
)
def get(name: PathText, services: ServicesDep) -> JSONResponse:
    """Return the schema itself, as the workers published it: `report` is that of `report.json`."""
    with services.database.read() as session:
        document = get_entry(session, "schema", name).document
    return JSONResponse(document, media_type=MEDIA_TYPE)
