"""What all parts of a spec have in common.

A rule between fields is declared once, as a class variable; the check and the JSON Schema are both
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
    """The error of a broken rule, to be raised by a validator.

    Args:
        rule: a sentence that says what to do.
        field: the offending field, where the validator is that of the object around it.
    """
    context = {"rule": rule} | ({"field": field} if field else {})
    return PydanticCustomError("broken_rule", "{rule}", context)


class SpecModel(BaseModel):
    """A part of a spec: frozen, and without unknown fields.

    Values are those of JSON: ``3.0`` is an integer, ``true`` is no number, a field without a value
    is left out and not null.

    Attributes:
        unused: fields that stay at their defaults because nothing would read them. They are
            accepted so, since specs that were stored with every default filled in hold them.
        depends: fields that may only be given while another one has a certain value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    unused: ClassVar[tuple[str, ...]] = ()
    depends: ClassVar[Mapping[str, tuple[str, str]]] = {}

    @field_validator("*", mode="before")
    @classmethod
    def _as_json_has_it(cls, value: object, info: ValidationInfo) -> object:
        if value is None:
            raise PydanticCustomError("null", "null is no value")
        # Python holds true to be 1, and so among the choices where 1 is one.
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
        # A field that is itself invalid is not among the data, and is reported already.
        if other in info.data and info.data[other] != needed:
            raise broken(f"{name} goes with {other} {needed} alone: set {other}, or leave it out")
        return value

    @classmethod
    def default(cls, name: str) -> Any:
        """The default of a field."""
        return cls.model_fields[name].get_default(call_default_factory=True)

    @classmethod
    def read(cls, document: object, beside: Sequence[str] = ()) -> Self:
        """Build it from parsed JSON.

        Args:
            beside: fields that the caller knows beside these, to be named where one is unknown.

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
        """As JSON, defaults filled in; fields without a value are left out."""
        return self.model_dump(mode="json", exclude_none=True)

    @classmethod
    def json_schema(cls) -> Schema:
        """The JSON Schema (draft 2020-12), without references; it accepts what `read` does."""
        return _json_schema(cls)

    @classmethod
    def rules(cls) -> Schema:
        """Keywords of the JSON Schema for what no single field can say."""
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
                continue  # No value is allowed.
            properties[name] = entry if default is ... else {**entry, "const": default}
        return {
            "type": "object",
            "additionalProperties": False,
            "properties": properties,
            "required": schema.get("required", []),
        } | cls.rules()


class _Generator(GenerateJsonSchema):
    """Leaves out what tells a reader nothing: titles, ``null``, class names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        # None stands for "not given"; given as null it is refused.
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
    if isinstance(value, list):
        return [_inline(each, definitions) for each in value]
    if not isinstance(value, dict):
        return value
    rest = {key: _inline(each, definitions) for key, each in value.items() if key != "$ref"}
    if "$ref" not in value:
        return rest
    return _inline(definitions[value["$ref"].rpartition("/")[2]], definitions) | rest
