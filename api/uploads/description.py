"""The parts of a form that say something of its file: `name`, `labels`, `metadata`."""

from typing import Any

from api.describing import Described
from api.strict_json import as_model, parse_object
from api.uploads.receiving import Form, TextRule


def _name(text: str) -> Any:
    return as_model({"name": text}, Described).name


def _labels(text: str) -> Any:
    return as_model({"labels": parse_object(text)}, Described).labels


def _metadata(text: str) -> Any:
    return as_model({"metadata": parse_object(text)}, Described).metadata


DESCRIPTION = [
    TextRule("name", _name),
    TextRule("labels", _labels),
    TextRule("metadata", _metadata),
]
DESCRIPTION_PARTS: dict[str, Any] = {
    "name": {"type": "string", "maxLength": 200},
    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    "metadata": {"type": "object"},
}
"""The same for the document."""


def described(form: Form) -> dict[str, Any]:
    """Return what the form says, as fields of `Described`."""
    parsed = {rule.name: form.optional_text(rule) for rule in DESCRIPTION}
    return {name: value for name, value in parsed.items() if value is not None}
