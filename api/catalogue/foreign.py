"""Checks specs by a schema alone, of a method or version that is not this process's."""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import ValidationError, relevance

from atmc_spec import InvalidInput, clip, unknown, wrong
from jobstore.tables import Document


def check(spec: Document, schema: Document, beside: Sequence[str]) -> None:
    """Raise `InvalidInput`, with a dotted path, unless the schema takes the spec."""
    errors = [error for error in _Validator(schema).iter_errors(spec) if not _is_low_k(error)]
    if errors:
        raise _refusal(max(errors, key=relevance), beside)


def _with_fractions(
    validator: Any, pattern: str, instance: Any, schema: Document
) -> Iterator[ValidationError]:
    """Hold a fraction to the bounds of its number, which a schema cannot say of a text."""
    yield from Draft202012Validator.VALIDATORS["pattern"](validator, pattern, instance, schema)
    parts = instance.split("/") if isinstance(instance, str) else ()
    if len(parts) != 2 or not all(map(_NUMBER.fullmatch, parts)):
        return
    numerator, denominator = map(float, parts)
    bounds = {name: schema[name] for name in _BOUNDS if name in schema}
    quotient = numerator / denominator if denominator else math.inf
    if bounds and not (
        math.isfinite(quotient) and validator.evolve(schema=bounds).is_valid(quotient)
    ):
        yield ValidationError(f"{instance!r} is out of range")


_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")
_BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
_Validator = validators.extend(Draft202012Validator, {"pattern": _with_fractions})


def _is_low_k(error: ValidationError) -> bool:
    # Left to `check_k`, which knows both ends of the range.
    return list(error.absolute_path) == ["target", "k"] and error.validator == "minimum"


def _refusal(error: ValidationError, beside: Sequence[str]) -> InvalidInput:
    path = [str(step) for step in error.absolute_path]
    match error.validator:
        case "required":
            name = next(name for name in error.validator_value if name not in error.instance)
            param = ".".join([*path, name])
            return InvalidInput("missing_field", f"{param!r} is required.", param)
        case "additionalProperties":
            known = list(error.schema["properties"])
            name = next(name for name in error.instance if name not in known)
            param = clip(".".join([*path, name]))
            return unknown(param, [*known, *(beside if not path else [])])
    param = ".".join(path)
    return InvalidInput("invalid_value", wrong(param, error.instance, error.schema), param or None)
