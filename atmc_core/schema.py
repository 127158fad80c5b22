"""Typed configuration from JSON, and its JSON Schema, both read off the same dataclasses.

A field says all there is to know of it in its type: ``Annotated[float, Interval(gt=0, le=1), "what
it is"]``. (pydantic would do this too, but the method must run on bare PyTorch.)
"""

import dataclasses
import math
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

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


@dataclass(frozen=True)
class Fraction:
    """Marks a number that may also be text such as ``"8/255"``; it is read as the quotient.

    Attributes:
        hint: added to the refusal of a number above its range; ``{value}`` is that number.
    """

    PATTERN: ClassVar[str] = r"^[0-9]+(\.[0-9]+)?/[0-9]+(\.[0-9]+)?$"

    hint: str

    def read(self, text: str) -> float:
        """The quotient; NaN, which no range contains, if it is none."""
        if not re.fullmatch(self.PATTERN, text):
            return math.nan
        numerator, denominator = (float(part) for part in text.split("/"))
        return numerator / denominator if denominator else math.nan


@dataclass(frozen=True)
class _Hint:
    """An annotation taken apart: the type without ``None``, and what is said of it."""

    bare: Any
    interval: Interval
    fraction: Fraction | None
    description: str


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
    return {key: _plain(value) for key, value in document.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return _without_none(value)
    return list(value) if isinstance(value, tuple) else value


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _has_default(field: "dataclasses.Field[Any]") -> bool:
    missing = dataclasses.MISSING
    return field.default is not missing or field.default_factory is not missing


def _split(hint: Any) -> _Hint:
    extras: tuple[Any, ...] = ()
    if get_origin(hint) is Annotated:
        hint, *rest = get_args(hint)
        extras = tuple(rest)
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(option for option in get_args(hint) if option is not type(None))
    return _Hint(
        bare=hint,
        interval=next((extra for extra in extras if isinstance(extra, Interval)), Interval()),
        fraction=next((extra for extra in extras if isinstance(extra, Fraction)), None),
        description=next((extra for extra in extras if isinstance(extra, str)), ""),
    )


def _type_schema(annotation: Any) -> dict[str, Any]:
    hint = _split(annotation)
    if dataclasses.is_dataclass(hint.bare):
        entry = json_schema(hint.bare)  # type: ignore[arg-type]
    elif get_origin(hint.bare) is Literal:
        entry = {"enum": list(get_args(hint.bare))}
    elif get_origin(hint.bare) is tuple:
        items = _type_schema(get_args(hint.bare)[0])
        entry = {"type": "array", "items": items, "minItems": 1, "uniqueItems": True}
    else:
        entry = {"type": _JSON_TYPES[hint.bare]} | hint.interval.schema()
        if hint.fraction:
            # Bounds are for numbers only, patterns for strings only.
            entry |= {"type": ["number", "string"], "pattern": Fraction.PATTERN}
    return entry | ({"description": hint.description} if hint.description else {})


def _convert(annotation: Any, value: Any, path: str) -> Any:
    hint = _split(annotation)
    if dataclasses.is_dataclass(hint.bare):
        return from_json(hint.bare, value, path)  # type: ignore[arg-type]
    if get_origin(hint.bare) is Literal:
        return _choice(get_args(hint.bare), value, path)
    if get_origin(hint.bare) is tuple:
        return _several(get_args(hint.bare)[0], value, path)
    return _scalar(hint, value, path)


def _choice(options: tuple[Any, ...], value: Any, path: str) -> Any:
    if isinstance(value, bool) or value not in options:
        allowed = ", ".join(str(option) for option in options)
        raise InvalidInput("invalid_value", f"{value!r} is not one of {allowed}", path)
    return value


def _several(item: Any, value: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise InvalidInput("invalid_value", f"{value!r} is not a list of at least one", path)
    items = tuple(_convert(item, each, f"{path}.{index}") for index, each in enumerate(value))
    if len(set(items)) < len(items):
        raise InvalidInput("invalid_value", f"{list(items)} names one twice", path)
    return items


def _scalar(hint: _Hint, value: Any, path: str) -> Any:
    bare, given = hint.bare, value
    if hint.fraction and isinstance(value, str):
        value = hint.fraction.read(value)
        if math.isnan(value):
            expected = 'a number, or a fraction such as "8/255"'
            raise InvalidInput("invalid_value", f"{given!r} is not {expected}", path)
    # JSON Schema calls 3.0 an integer and true no number; so do we.
    if bare is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    accepted = (int, float) if bare is float else bare
    if not isinstance(value, accepted) or isinstance(value, bool) != (bare is bool):
        raise InvalidInput("invalid_value", f"{value!r} is not a {_JSON_TYPES[bare]}", path)
    if bare in (int, float) and value not in hint.interval:
        message = f"{given!r} is out of range: {hint.interval}"
        too_large = hint.interval.le is not None and value > hint.interval.le
        if hint.fraction and too_large and not isinstance(given, str):
            message += "; " + hint.fraction.hint.format(value=given)
        raise InvalidInput("invalid_value", message, path)
    return float(value) if bare is float else value
