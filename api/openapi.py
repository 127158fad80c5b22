"""Completes the OpenAPI document where FastAPI cannot read it off the code."""

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api import problems
from api.models.schemas import Normalization

LOCATION: dict[str, Any] = {
    "headers": {"Location": {"description": "Where it is.", "schema": {"type": "string"}}}
}
FILE: dict[str, Any] = {"type": "string", "format": "binary"}


def multipart_body(properties: dict[str, Any], required: Sequence[str]) -> dict[str, Any]:
    """Return the `openapi_extra` of a route that reads a multipart stream itself."""
    return {"requestBody": {"required": True, "content": multipart(properties, required)}}


def multipart(properties: dict[str, Any], required: Sequence[str]) -> dict[str, Any]:
    """Return the content entry of a multipart body of these parts and no others."""
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }
    return {"multipart/form-data": {"schema": schema}}


def install(app: FastAPI) -> None:
    """Give `app` its OpenAPI document."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _build(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _build(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=app.description,
        routes=app.routes,
    )
    # Bodies that the handlers stream themselves refer to these.
    document["components"]["schemas"]["Normalization"] = Normalization.model_json_schema()
    for operations in document["paths"].values():
        for operation in operations.values():
            if "security" in operation:
                _add_refusals_of_callers(operation)
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    _as_problem(response)
    return document


def _add_refusals_of_callers(operation: dict[str, Any]) -> None:
    schema = {"$ref": "#/components/schemas/ProblemDocument"}
    refusals = problems.documented(
        "key_required", "key_invalid", "scope_missing", "rate_limited", "quota_exceeded"
    )
    for status, entry in refusals.items():
        operation["responses"][str(status)] = {
            "description": entry["description"],
            "content": {"application/json": {"schema": schema}},
        }


def _as_problem(response: dict[str, Any]) -> None:
    content = response["content"]
    content[problems.MEDIA_TYPE] = content.pop("application/json")
