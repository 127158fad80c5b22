"""Completes the OpenAPI document where FastAPI cannot read it off the code."""

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from api import problems
from api.models.schemas import Normalization
from api.sources.schemas import NewResults, NewSource
from api.webhooks.schemas import NewWebhook

LOCATION: dict[str, Any] = {
    "headers": {"Location": {"description": "Where it is.", "schema": {"type": "string"}}}
}
FILE: dict[str, Any] = {"type": "string", "format": "binary"}


# The links from a call that makes something to the calls that take its id, by their parameter.
_LINKS: dict[str, tuple[str, tuple[str, ...]]] = {
    "models_create": ("model_id", ("models_get", "models_delete")),
    "datasets_create": ("dataset_id", ("datasets_get", "datasets_delete")),
    "jobs_create": (
        "job_id",
        (
            "jobs_get",
            "jobs_events",
            "jobs_cancel",
            "jobs_retry",
            "jobs_delete",
            "reports_get",
            "artifacts_list",
        ),
    ),
    "sweeps_create": (
        "sweep_id",
        ("sweeps_get", "sweeps_events", "sweeps_cancel", "sweeps_delete"),
    ),
    "webhooks_create": (
        "webhook_id",
        ("webhooks_get", "webhooks_change", "webhooks_delete", "webhooks_deliveries"),
    ),
    "uploads_create_direct": ("upload_id", ("uploads_get", "uploads_delete")),
    "keys_create": ("key_id", ("keys_revoke",)),
}


def file_body(
    properties: dict[str, Any], required: Sequence[str], by_reference: type[BaseModel]
) -> dict[str, Any]:
    """Return the `openapi_extra` of a route that takes a file: in the request, or named."""
    json = {"application/json": {"schema": _schema(by_reference)}}
    content = multipart(properties, required) | json
    return {"requestBody": {"required": True, "content": content}}


def _schema(kind: type[BaseModel]) -> dict[str, Any]:
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    return schema


def multipart(properties: dict[str, Any], required: Sequence[str]) -> dict[str, Any]:
    """Return the content entry of a multipart body of these parts and no others."""
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }
    return {"multipart/form-data": {"schema": schema}}


def json_body(kind: type[BaseModel]) -> dict[str, Any]:
    """Return the `openapi_extra` of a route that reads a JSON body of this kind itself.

    FastAPI would read it, however long, before it asks who calls.
    """
    schema = kind.model_json_schema()
    definitions = schema.pop("$defs", {})
    for name, field in schema["properties"].items():
        schema["properties"][name] = _inlined(field, definitions)
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_inlined(each, definitions) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return definitions[schema["$ref"].rpartition("/")[2]]
    return {name: _inlined(value, definitions) for name, value in schema.items()}


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
    for kind in (Normalization, NewWebhook, NewSource, NewResults):
        document["components"]["schemas"][kind.__name__] = kind.model_json_schema()
    for operations in document["paths"].values():
        for operation in operations.values():
            if "security" in operation:
                _add_refusals_of_callers(operation)
            _add_links(operation)
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    _as_problem(response)
    return document


def _add_refusals_of_callers(operation: dict[str, Any]) -> None:
    schema = {"$ref": "#/components/schemas/ProblemDocument"}
    refusals = problems.documented(
        "key_required",
        "key_invalid",
        "token_invalid",
        "token_expired",
        "scope_missing",
        "token_without_tenant",
        "address_not_allowed",
        "foreign_origin",
        "rate_limited",
        "quota_exceeded",
    )
    for status, entry in refusals.items():
        # Those of the call's own come after the heading.
        own = operation["responses"].get(str(status), {}).get("description", "").splitlines()[1:]
        operation["responses"][str(status)] = {
            "description": "\n".join([entry["description"], *own]),
            "content": {"application/json": {"schema": schema}},
        }


def _add_links(operation: dict[str, Any]) -> None:
    parameter, calls = _LINKS.get(operation["operationId"], ("", ()))
    links = {
        call: {"operationId": call, "parameters": {parameter: "$response.body#/id"}}
        for call in calls
    }
    for status, response in operation["responses"].items():
        if links and int(status) < 300:
            response["links"] = links


def _as_problem(response: dict[str, Any]) -> None:
    content = response["content"]
    content[problems.MEDIA_TYPE] = content.pop("application/json")
