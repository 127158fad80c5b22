"""The OpenAPI document of `POST /jobs`, whose handler reads the body itself."""

from typing import Any

from api.jobs.schemas import NewJobByIds, NewJobWithFiles
from api.openapi import FILE, LOCATION, multipart
from api.problems import DATASET_CODES, MODEL_CODES, ONCE_CODES, SOURCE_CODES, documented

_SPEC_EXAMPLE = {
    "method": "atmc",
    "target": {"density": 0.1, "bits": 4},
    "threat": {"norm": "linf", "epsilon": 0.1},
}


def _with_spec(kind: type[NewJobByIds] | type[NewJobWithFiles], **example: str) -> dict[str, Any]:
    """Return the schema of a body: the service's fields and, flat beside them, the method's."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    schema["properties"] = schema["properties"] | {
        "method": {"type": "string", "description": "One of `GET /methods`."},
        "target": {"type": "object"},
        "threat": {"type": "object"},
    }
    schema["required"] = [*schema.get("required", []), "method"]
    if kind is NewJobByIds:
        schema["allOf"] = [
            {"anyOf": [{"required": [f"{noun}_id"]}, {"required": [noun]}]}
            for noun in ("model", "dataset")
        ]
    # The method's own fields: its schema is published by the workers, not known here.
    schema["additionalProperties"] = True
    schema["description"] = (
        f"{schema['description']} The other fields are the method's own and stand beside these; "
        "their JSON Schema is `spec_schema` of `GET /methods/{name}`. Unknown fields are refused."
    )
    schema["examples"] = [example | _SPEC_EXAMPLE]
    return schema


NEW_JOB_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": _with_spec(
                    NewJobByIds,
                    model_id="mdl_0197f3a2c5d87c3e9b1a4f60d2e8b7c1",
                    dataset_id="dst_0197f3a2c5d87c3e9b1a4f60d2e8b7c1",
                )
            },
            **multipart(
                {
                    "model": FILE | {"description": "safetensors, or a `.pt` state dict"},
                    "dataset": FILE | {"description": "`.npz`, as in `POST /datasets`"},
                    "spec": _with_spec(NewJobWithFiles, architecture="lenet"),
                },
                required=("model", "dataset", "spec"),
            ),
        },
    }
}

CREATE_RESPONSES = {202: LOCATION} | documented(
    "malformed_json",
    "malformed_multipart",
    "file_too_large",
    "unsupported_media_type",
    "missing_field",
    "unknown_field",
    "invalid_value",
    "unknown_architecture",
    "unknown_method",
    "k_out_of_range",
    "unsuitable_start",
    *MODEL_CODES,
    *DATASET_CODES,
    *SOURCE_CODES,
    *ONCE_CODES,
    "no_worker",
)
