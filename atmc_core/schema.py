"""Typed configuration from JSON, and its JSON Schema, both read off the same dataclasses.

A field says all there is to know of it in its type: ``Annotated[float, Interval(gt=0, le=1), "what
it is"]``. (pydantic would do this too, but the method must run on bare PyTorch.)
"""

import dataclasses
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from atmc_core.errors import InvalidInput

T = TypeVar("T")
_JSON_TYPES = {int: "integer", float: "number", str: "string", bool: "boolean"}


@dataclass(frozen=True)
class Interval:
    """The allowed range of a number; ``None`` means unbounded on that side."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None

    def __contains__(self, value: float) -> bool:
        return (
            math.isfinite(value)
            and (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
        )

    def __str__(self) -> str:
        bounds = ((self.ge, "at least"), (self.gt, "above"), (self.le, "at most"))
        return " and ".join(f"{word} {bound}" for bound, word in bounds if bound is not None)

    def schema(self) -> dict[str, float]:
        keywords = {"minimum": self.ge, "exclusiveMinimum": self.gt, "maximum": self.le}
        return {keyword: bound for keyword, bound in keywords.items() if bound is not None}


def json_schema(cls: type) -> dict[str, Any]:
    """The JSON Schema of a configuration dataclass; unknown properties are refused everywhere."""
    hints = get_type_hints(cls, include_extras=True)
    fields = dataclasses.fields(cls)
    schema: dict[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {},
        "required": [field.name for field in fields if not _has_default(field)],
    }
    for field in fields:
        entry = _type_schema(hints[field.name])
        if isinstance(field.default, (int, float, str, bool)):
            entry["default"] = field.default
        schema["properties"][field.name] = entry
    # A class may add what no single field can say, such as "exactly one of these".
    return schema | getattr(cls, "SCHEMA_EXTRA", {})


def from_json(cls: type[T], document: object, path: str = "") -> T:
    """Build a configuration dataclass from parsed JSON.

    Raises:
        InvalidInput: for an unknown, missing or out-of-range value; ``param`` is its dotted path.
    """
    if not isinstance(document, Mapping):
        raise InvalidInput("invalid_value", f"{path or 'spec'} must be an object", path or None)
    hints = get_type_hints(cls, include_extras=True)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in document:
        if name not in fields:
            known = ", ".join(fields)
            raise InvalidInput("unknown_field", f"unknown field; known: {known}", _join(path, name))
    values = {}
    for name, field in fields.items():
        if name in document:
            values[name] = _convert(hints[name], document[name], _join(path, name))
        elif not _has_default(field):
            raise InvalidInput(
                "missing_field", f"{_join(path, name)} is required", _join(path, name)
            )
    try:
        return cls(**values)
    except InvalidInput as error:
        param = _join(path, error.param) if error.param else path or None
        raise InvalidInput(error.code, error.message, param) from None


def to_json(config: Any) -> dict[str, Any]:
    """The configuration as JSON, defaults filled in; fields without a value are left out."""
    return _without_none(dataclasses.asdict(config))


def _without_none(document: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_none(value) if isinstance(value, dict) else value
        for key, value in document.items()
        if value is not None
    }


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _has_default(field: "dataclasses.Field[Any]") -> bool:
    missing = dataclasses.MISSING
    return field.default is not missing or field.default_factory is not missing


def _split(hint: Any) -> tuple[Any, Interval, str]:
    """The bare type of an annotation (without ``None``), its range and its description."""
    interval, description = Interval(), ""
    if get_origin(hint) is Annotated:
        hint, *extras = get_args(hint)
        interval = next((extra for extra in extras if isinstance(extra, Interval)), interval)
        description = next((extra for extra in extras if isinstance(extra, str)), "")
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(option for option in get_args(hint) if option is not type(None))
    return hint, interval, description


def _type_schema(hint: Any) -> dict[str, Any]:
    bare, interval, description = _split(hint)
    if dataclasses.is_dataclass(bare):
        entry = json_schema(bare)  # type: ignore[arg-type]
    elif get_origin(bare) is Literal:
        entry = {"enum": list(get_args(bare))}
    else:
        entry = {"type": _JSON_TYPES[bare]} | interval.schema()
    return entry | ({"description": description} if description else {})


def _convert(hint: Any, value: Any, path: str) -> Any:
    bare, interval, _ = _split(hint)
    if dataclasses.is_dataclass(bare):
        return from_json(bare, value, path)  # type: ignore[arg-type]
    if get_origin(bare) is Literal:
        if isinstance(value, bool) or value not in get_args(bare):
            allowed = ", ".join(str(option) for option in get_args(bare))
            raise InvalidInput("invalid_value", f"{value!r} is not one of {allowed}", path)
        return value
    # JSON Schema calls 3.0 an integer and true no number; so do we.
    if bare is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    accepted = (int, float) if bare is float else bare
    if not isinstance(value, accepted) or isinstance(value, bool) != (bare is bool):
        raise InvalidInput("invalid_value", f"{value!r} is not a {_JSON_TYPES[bare]}", path)
    if bare in (int, float) and value not in interval:
        raise InvalidInput("invalid_value", f"{value!r} is out of range: {interval}", path)
    return float(value) if bare is float else value
