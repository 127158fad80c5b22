"""The base class of all parts of a spec.

A rule between fields is declared once, as a class variable; both the check and the JSON Schema are
derived from it.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    GetJsonSchemaHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from atmc_spec.errors import InvalidInput
from atmc_spec.refusals import refusal

Schema = dict[str, Any]


def broken(rule: str, field: str | None = None) -> PydanticCustomError:
    """The error that a validator raises when a rule is broken.

    Args:
        rule: a sentence that says what to do.
        field: the offending field, if the validator is that of the object that holds the field.
    """
    context = {"rule": rule} | ({"field": field} if field else {})
    return PydanticCustomError("broken_rule", "{rule}", context)


class SpecModel(BaseModel):
    """A part of a spec, which cannot be changed and has no unknown fields.

    Values mean what they mean in JSON: ``3.0`` is an integer, ``true`` is no number, and a field
    without a value is left out instead of being null.

    Attributes:
        unused: fields that nothing would read. They are refused unless they have their default
            values, as they do in stored specs, where every default is filled in.
        depends: fields that may be given only while another field has a certain value: the name and
            value of that field, by the name of the dependent one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    unused: ClassVar[tuple[str, ...]] = ()
    depends: ClassVar[Mapping[str, tuple[str, object]]] = {}

    @field_validator("*", mode="before")
    @classmethod
    def _as_json_has_it(cls, value: object, info: ValidationInfo) -> object:
        if value is None:
            raise PydanticCustomError("null", "null is no value")
        # True equals 1 in Python, so it would pass where 1 is one of the choices.
        kind = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and kind is not bool:
            raise PydanticCustomError("flag", "true and false are no values of this field")
        return int(value) if isinstance(value, float) and value.is_integer() else value

    @field_validator("*", mode="after")
    @classmethod
    def _is_of_use(cls, value: object, info: ValidationInfo) -> object:
        name = info.field_name or ""
        if name in cls.unused and value != cls.default(name):
            raise broken(f"the method has no use for {name}: leave it out")
        other, needed = cls.depends.get(name, ("", ""))
        # If the other field is itself invalid, it is not in the data and already reported.
        if other in info.data and info.data[other] != needed:
            raise broken(f"{name} goes with {other} {needed} alone: set {other}, or leave it out")
        return value

    @classmethod
    def default(cls, name: str) -> Any:
        """The default value of a field."""
        return cls.model_fields[name].get_default(call_default_factory=True)

    @classmethod
    def read(cls, document: object, beside: Sequence[str] = ()) -> Self:
        """Build the part from parsed JSON.

        Args:
            document: the parsed JSON.
            beside: fields that the caller accepts in addition; the refusal of an unknown field
                lists them, too.

        Raises:
            InvalidInput: ``unknown_field``, ``missing_field`` or ``invalid_value``; ``param`` is
                the dotted path of the offending field.
        """
        if not isinstance(document, Mapping):
            raise InvalidInput("invalid_value", "the spec must be an object")
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise refusal(first, cls.json_schema(), beside) from None

    def to_json(self) -> dict[str, Any]:
        """The part as JSON with defaults filled in; fields without a value are left out."""
        return self.model_dump(mode="json", exclude_none=True)

    @classmethod
    def json_schema(cls) -> Schema:
        """The JSON Schema (draft 2020-12), without references; it accepts what ``read`` accepts."""
        return _json_schema(cls)

    @classmethod
    def rules(cls) -> Schema:
        """The keywords of the JSON Schema that express rules between fields."""
        if not cls.depends:
            return {}
        return {
            "dependentSchemas": {
                name: {"properties": {other: {"const": needed}}}
                | ({} if cls.default(other) == needed else {"required": [other]})
                for name, (other, needed) in cls.depends.items()
                if name not in cls.unused
            }
        }

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core))
        properties = {}
        for name, entry in schema["properties"].items():
            default = cls.default(name) if name in cls.unused else ...
            if default is None:
                continue  # The field may not be given at all.
            properties[name] = entry if default is ... else {**entry, "const": default}
        return {
            "type": "object",
            "additionalProperties": False,
            "properties": properties,
            "required": schema.get("required", []),
        } | cls.rules()


class _Generator(GenerateJsonSchema):
    """Leaves out what tells a reader nothing: titles, ``null`` and class names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        # None means that a field is not given, and a null in the JSON is refused.
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        inner = self.generate_inner(schema["schema"])
        default = schema.get("default")
        plain = isinstance(default, (int, float, str, bool))
        return {**inner, "default": default} if plain else inner


@cache
def _json_schema(cls: type[BaseModel]) -> Schema:
    schema = cls.model_json_schema(schema_generator=_Generator)
    definitions = schema.pop("$defs", {})
    inlined: Schema = _inline(schema, definitions)
    return inlined


def _inline(value: Any, definitions: Mapping[str, Any]) -> Any:
    """A part of a JSON Schema with its references replaced by their definitions."""
    if isinstance(value, list):
        return [_inline(each, definitions) for each in value]
    if not isinstance(value, dict):
        return value
    rest = {key: _inline(each, definitions) for key, each in value.items() if key != "$ref"}
    if "$ref" not in value:
        return rest
    return _inline(definitions[value["$ref"].rpartition("/")[2]], definitions) | rest
