"""Puts into words what is wrong with a document and what was expected."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from atmc_spec.errors import InvalidInput


def refusal(
    error: Mapping[str, Any], schema: Mapping[str, Any], beside: Sequence[str] = ()
) -> InvalidInput:
    """Turn an error of pydantic into an ``InvalidInput``.

    Args:
        error: one entry of ``ValidationError.errors``.
        schema: the JSON Schema of the whole document, without references.
        beside: fields that the caller accepts in addition to those of the schema.
    """
    context = error.get("ctx", {})
    path = [*error["loc"], *([context["field"]] if "field" in context else [])]
    param = clip(".".join(str(part) for part in path))
    match error["type"]:
        case "missing":
            return InvalidInput("missing_field", f"{param!r} is required.", param)
        case "extra_forbidden":
            known = _at(schema, path[:-1]).get("properties", {})
            return unknown(param, [*known, *(beside if len(path) == 1 else ())])
        case "broken_rule":
            message = f"{param!r}: {context['rule']}." if param else f"{context['rule']}."
            return InvalidInput("invalid_value", message, param or None)
    return InvalidInput("invalid_value", wrong(param, error["input"], _at(schema, path)), param)


def unknown(param: str, known: Iterable[str]) -> InvalidInput:
    """The refusal of a field that is not among the known ones, which it lists."""
    message = f"{param!r} is not known. Known: {', '.join(known)}."
    return InvalidInput("unknown_field", message, param)


def wrong(param: str, value: Any, schema: Mapping[str, Any]) -> str:
    """A sentence which says that a value is not what its JSON Schema allows."""
    meant = f" ({schema['description']})" if "description" in schema else ""
    return f"{param!r} is {shown(value)}, expected {expected(schema)}{meant}."


def clip(text: str, width: int = 80) -> str:
    """Cut a text from outside to ``width`` characters, and escape what UTF-8 cannot encode."""
    short = text if len(text) <= width else f"{text[:width]}…"
    return short.encode(errors="backslashreplace").decode()


def shown(value: object) -> str:
    """A value from outside as Python writes it, cut short."""
    return clip(repr(value))


def _at(schema: Mapping[str, Any], path: list[str | int]) -> Mapping[str, Any]:
    """The part of a JSON Schema that describes the value at a path; empty if there is none."""
    for part in path:
        inner = schema.get("items") if isinstance(part, int) else schema.get("properties", {})
        found = inner if isinstance(part, int) else (inner or {}).get(part)
        schema = found or {}
    return schema


def expected(schema: Mapping[str, Any]) -> str:
    """The values that a JSON Schema allows, in words."""
    if all("required" in option for option in schema.get("oneOf", [{}])):
        names = [name for option in schema["oneOf"] for name in option["required"]]
        return f"an object with exactly one of {', '.join(names)}"
    if "const" in schema:
        return repr(schema["const"])
    if "enum" in schema:
        return f"one of {', '.join(str(value) for value in schema['enum'])}"
    if "type" not in schema:
        return f"what meets {shown(dict(schema))}"
    kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    return " or ".join(_kind(kind, schema) for kind in kinds)


def _kind(kind: str, schema: Mapping[str, Any]) -> str:
    article = "an" if kind[0] in "aio" else "a"
    words = _BOUNDS.get(kind, {})
    bounds = [f"{word} {schema[keyword]}" for keyword, word in words.items() if keyword in schema]
    if schema.get("uniqueItems") and kind == "array":
        bounds.append("none twice")
    return f"{article} {kind} {' and '.join(bounds)}".rstrip()


_RANGE = {
    "minimum": "of at least",
    "exclusiveMinimum": "above",
    "maximum": "of at most",
    "exclusiveMaximum": "below",
}
_BOUNDS = {
    "number": _RANGE,
    "integer": _RANGE,
    "string": {"pattern": "that matches"},
    "array": {"minItems": "with a length of at least", "maxItems": "with a length of at most"},
}
