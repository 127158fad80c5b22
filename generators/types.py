"""Writes `atmc_client/types/`: requests' parts, answers and the report, as typed dictionaries.

The names and fields are those of the OpenAPI document and of the report's schema.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from datamodel_code_generator import (
    Formatter,
    GenerateConfig,
    InputFileType,
    LiteralType,
    PythonVersion,
    generate,
)
from datamodel_code_generator.enums import DataModelType

from api.app import create_app
from atmc_core.report.schema import schema
from generators.formatting import formatted
from jobstore.settings import Settings

TARGET = Path(__file__).parents[1] / "atmc_client" / "types"
BY_HAND = ("__init__.py",)

_ANSWERS = '''# Written from the API's OpenAPI document by `make generate`.
"""What the service answers, field by field. A newer service may add fields."""

'''
_REQUESTS = '''# Written from the API's OpenAPI document by `make generate`.
"""What stands in requests, field by field."""

'''
_REPORT = '''# Written from the report's schema by `make generate`.
"""The report that a job makes, field by field. A newer service may add fields."""

'''
_OPTIONS = GenerateConfig(
    input_file_type=InputFileType.OpenAPI,
    output_model_type=DataModelType.TypingTypedDict,
    target_python_version=PythonVersion.PY_311,
    enum_field_as_literal=LiteralType.All,
    use_schema_description=True,
    use_field_description=True,
    use_inline_field_description=True,
    use_single_line_docstring=True,
    use_closed_typed_dict=False,
    disable_timestamp=True,
    formatters=[Formatter.BUILTIN],
)
# Ranges are the service's to keep, and what was a time stays the text that JSON has.
_DROPPED = {
    *("title", "format", "pattern", "examples", "default", "readOnly", "$schema", "$id"),
    *("minimum", "maximum", "minItems", "maxItems", "dependentRequired"),
}
_COMPONENTS, _DEFINITIONS = "#/components/schemas/", "#/$defs/"


def written() -> dict[Path, str]:
    """Return what the files are to hold, by their paths."""
    api = _document()
    parts = {
        "answers.py": (_ANSWERS, _answers(api)),
        "requests.py": (_REQUESTS, _requests(api)),
        "report.py": (_REPORT, _report()),
    }
    return {TARGET / name: _code(*part, TARGET / name) for name, part in parts.items()}


def _document() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return create_app(Settings(home=Path(folder))).openapi()


def _code(head: str, schemas: dict[str, Any], path: Path) -> str:
    document = {
        "openapi": "3.1.0",
        "info": {"title": "", "version": ""},
        "paths": {},
        "components": {"schemas": {name: _plain(each) for name, each in schemas.items()}},
    }
    code = generate(json.dumps(document), config=_OPTIONS)
    assert isinstance(code, str)
    return formatted(head + code[code.index("from __future__") :], path)


def _answers(api: dict[str, Any]) -> dict[str, Any]:
    """Return the schemas of the answers, but for lists: of those the client has the entries."""
    schemas = api["components"]["schemas"]
    answered = _referred([operation["responses"] for operation in _operations(api)], schemas)
    return {
        _name(name): schemas[name]
        for name in sorted(answered)
        if not _name(name).endswith(("List", "Page"))
    }


def _requests(api: dict[str, Any]) -> dict[str, Any]:
    """Return the schemas of requests' parts, but for those that answers have, too."""
    schemas, operations = api["components"]["schemas"], _operations(api)
    sent = [[each.get("requestBody"), each.get("parameters")] for each in operations]
    answered = _referred([each["responses"] for each in operations], schemas)
    change = api["paths"]["/jobs/{job_id}"]["patch"]["requestBody"]
    description = change["content"]["application/json"]["schema"]
    return {
        "Description": description,
        **{name: schemas[name] for name in sorted(_referred(sent, schemas) - answered)},
    }


def _operations(api: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for operations in api["paths"].values() for operation in operations.values()]


def _referred(within: Any, schemas: dict[str, Any]) -> set[str]:
    """Return the names of the schemas that are referred to there, and by these in turn."""
    found: set[str] = set()
    waiting = [within]
    while waiting:
        match waiting.pop():
            case {"$ref": str(reference)}:
                name = reference.removeprefix(_COMPONENTS)
                if name not in found:
                    found.add(name)
                    waiting.append(schemas[name])
            case dict(entries):
                waiting += entries.values()
            case list(entries):
                waiting += entries
    return found


def _report() -> dict[str, Any]:
    whole = schema()
    parts = whole.pop("$defs")
    return {"Report": whole} | {name.title(): part for name, part in sorted(parts.items())}


def _plain(part: Any) -> Any:
    """Return the schema without what a type does not say, its references to the new names."""
    if isinstance(part, list):
        return [_plain(each) for each in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        return {"$ref": _COMPONENTS + _referred_to(part["$ref"])}
    kept = {
        # The names of properties are not keywords.
        key: {name: _plain(each) for name, each in value.items()}
        if key == "properties"
        else _plain(value)
        for key, value in part.items()
        if key not in _DROPPED
    }
    if kept.get("type") == ["object", "null"]:
        described = {key: kept.pop(key) for key in ("description",) if key in kept}
        return described | {"anyOf": [kept | {"type": "object"}, {"type": "null"}]}
    return kept


def _referred_to(reference: str) -> str:
    if reference.startswith(_DEFINITIONS):
        return reference.removeprefix(_DEFINITIONS).title()
    return _name(reference.removeprefix(_COMPONENTS))


def _name(name: str) -> str:
    return name.removesuffix("View")
