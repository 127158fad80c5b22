"""Checks a new job: the service's fields by pydantic, the method's by its own JSON Schema."""

from collections.abc import Mapping
from typing import Any, TypeVar

from jsonschema.exceptions import ValidationError as SchemaError
from jsonschema.exceptions import relevance
from pydantic import ValidationError
from sqlalchemy.orm import Session

from api.catalogue.lookup import find_spec_schema
from api.jobs.schemas import NewJob
from api.problems import Problem, invalid
from api.text import clip, shown
from jobstore.tables import Document

New = TypeVar("New", bound=NewJob)


def read_new_job(session: Session, body: Document, kind: type[New]) -> tuple[New, Document]:
    """Split a body into the service's fields and the method's spec, both checked.

    Raises `missing_field`, `unknown_field`, `invalid_value` (with a dotted path as `param`),
    `unknown_method`, `no_worker`. The range of `target.k` depends on the network: see `check_k`.
    """
    fields = {name: value for name, value in body.items() if name in kind.model_fields}
    spec = {name: value for name, value in body.items() if name not in kind.model_fields}
    try:
        new = kind.model_validate(fields)
    except ValidationError as error:
        raise invalid(error.errors()) from error
    method = spec.get("method")
    if not isinstance(method, str):
        problem = "missing_field" if method is None else "invalid_value"
        raise Problem(problem, "'method' must name a method; GET /methods lists them.", "method")
    found = find_spec_schema(session, method).errors(spec)
    errors = [error for error in found if not _is_low_k(error)]
    if errors:
        raise _refusal(max(errors, key=relevance), also_known=list(kind.model_fields))
    return new, spec


def check_k(spec: Document, dense_weights: int) -> None:
    """Raise `k_out_of_range` unless the target leaves between 1 and `dense_weights` non-zeros.

    A method whose schema lets the target out compresses nothing, and has no k to check. How many
    fit `max_bytes` depends on the network's other tensors: the job's first stage finds out.
    """
    target = spec.get("target")
    if target is None or "max_bytes" in target:
        return
    if "nominal_ratio" in target:
        _check_ratio(target, dense_weights)
        return
    given = "k" if "k" in target else "density"
    k = target["k"] if given == "k" else round(target["density"] * dense_weights)
    if not 1 <= k <= dense_weights:
        wanted = f"k is {k}" if given == "k" else f"density {target['density']} leaves {k}"
        raise Problem(
            "k_out_of_range",
            f"{wanted}, and the network has {dense_weights} weights: "
            f"choose from 1 to {dense_weights} non-zeros.",
            f"target.{given}",
        )


def _check_ratio(target: Document, dense_weights: int) -> None:
    # One non-zero, and the codebook's value for it, over the dense weights.
    bits = target["bits"] + (32 if target["bits"] <= 8 else 0)
    least = bits / (32 * dense_weights)
    if target["nominal_ratio"] < least:
        raise Problem(
            "k_out_of_range",
            f"nominal_ratio {target['nominal_ratio']} leaves 0 non-zeros, and with one it is "
            f"{least:.3g} for a network of {dense_weights} weights: ask for more.",
            "target.nominal_ratio",
        )


def _is_low_k(error: SchemaError) -> bool:
    # Left to check_k, which knows both ends of the range.
    return list(error.absolute_path) == ["target", "k"] and error.validator == "minimum"


def _refusal(error: SchemaError, also_known: list[str]) -> Problem:
    path = [str(step) for step in error.absolute_path]
    match error.validator:
        case "required":
            name = next(name for name in error.validator_value if name not in error.instance)
            param = ".".join([*path, name])
            return Problem("missing_field", f"{param!r} is required.", param)
        case "additionalProperties":
            known = list(error.schema["properties"])
            name = next(name for name in error.instance if name not in known)
            param = clip(".".join([*path, name]))
            listed = ", ".join([*known, *(also_known if not path else [])])
            return Problem("unknown_field", f"{param!r} is not known. Known: {listed}.", param)
    param = ".".join(path)
    meant = f" ({error.schema['description']})" if "description" in error.schema else ""
    detail = f"{param!r} is {shown(error.instance)}, expected {_expected(error.schema)}{meant}."
    return Problem("invalid_value", detail, param or None)


def _expected(schema: Mapping[str, Any]) -> str:
    """Say in words what values a schema allows."""
    if all("required" in option for option in schema.get("oneOf", [{}])):
        names = [name for option in schema["oneOf"] for name in option["required"]]
        return f"an object with exactly one of {', '.join(names)}"
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
