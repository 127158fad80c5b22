"""The published JSON Schema of a method accepts what its model accepts, and nothing else."""

import copy
import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atmc_spec import SPECS, InvalidInput, read_spec

WRONG: list[Any] = [None, True, False, 0, 1, -1, 3.0, 2.5, 1e9, 10**30, "", "x", [], {}, ["pgd"]]
NOWHERE: dict[str, Any] = {}


def base(method: str) -> dict[str, Any]:
    document: dict[str, Any] = {"method": method, "threat": {"norm": "linf", "epsilon": 0.1}}
    if method != "evaluate":
        document["target"] = {"density": 0.1, "bits": 4}
    return document


def leaves(schema: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    """Every field of a schema with its own part of it, objects and what is in them."""
    found: list[tuple[tuple[str, ...], Any]] = [((*path, "unheard_of"), NOWHERE)]
    for name, entry in schema["properties"].items():
        found.append(((*path, name), entry))
        if "properties" in entry:
            found += leaves(entry, (*path, name))
    return found


def values(entry: dict[str, Any]) -> list[Any]:
    """Values at and beside all ends of what a schema allows."""
    ends = [entry[key] for key in ("minimum", "exclusiveMinimum", "maximum") if key in entry]
    near = [end + step for end in ends for step in (-1, -0.25, 0, 0.25, 1)]
    listed = [*entry.get("enum", []), *([entry["const"]] if "const" in entry else [])]
    listed += [entry["default"]] if "default" in entry else []
    items = entry.get("items", {}).get("enum", [])
    lists = [[first, second] for first in items for second in items]
    return [*WRONG, *near, *listed, *lists, *(["8/255", "1/2", "8 / 255"] if near else [])]


@st.composite
def changed(draw: st.DrawFn, method: str) -> dict[str, Any]:
    """A good spec with up to four fields set to values that may be good or bad."""
    document = base(method)
    fields = leaves(SPECS[method].json_schema())
    for _ in range(draw(st.integers(0, 4))):
        path, entry = draw(st.sampled_from(fields))
        place = document
        for name in path[:-1]:
            place = place.setdefault(name, {}) if isinstance(place, dict) else {}
        good = [*entry.get("enum", []), entry.get("default"), entry.get("maximum")]
        either = st.sampled_from(values(entry)) | st.sampled_from([v for v in good if v] or [1])
        if isinstance(place, dict):
            place[path[-1]] = copy.deepcopy(draw(either))
    return document


def accepts(document: dict[str, Any]) -> bool:
    try:
        read_spec(document)
    except InvalidInput:
        return False
    return True


@pytest.mark.parametrize("method", SPECS)
@settings(max_examples=150, derandomize=True)
@given(st.data())
def test_the_schema_and_the_model_agree(method: str, data: st.DataObject) -> None:
    document = data.draw(changed(method))
    schema = SPECS[method].json_schema()
    valid = jsonschema.Draft202012Validator(schema).is_valid(document)
    assert accepts(document) == valid, document


@pytest.mark.parametrize("method", SPECS)
def test_the_schema_is_a_good_one_and_explains_every_field(method: str) -> None:
    schema = SPECS[method].json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert json.loads(json.dumps(schema)) == schema
    assert "$ref" not in json.dumps(schema)
    for path, entry in leaves(schema):
        if entry.get("type") == "object":
            assert entry["additionalProperties"] is False
        elif entry is not NOWHERE and path != ("method",):
            assert entry["description"], path
