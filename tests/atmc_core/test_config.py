"""Job specs: defaults, ranges and names, enforced by the dataclasses and by their schema."""

from typing import Any

import jsonschema
import pytest

from atmc_core.catalogue import catalogue
from atmc_core.config import JobSpec, Target
from atmc_core.errors import InvalidInput
from atmc_core.schema import from_json, json_schema, to_json

GOOD: dict[str, Any] = {
    "method": "atmc",
    "target": {"density": 0.1, "bits": 4},
    "threat": {"norm": "linf", "epsilon": 0.1},
}

BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown method": ({"method": "magic"}, "invalid_value", "method"),
    "bits 9": ({"target": {"density": 0.1, "bits": 9}}, "invalid_value", "target.bits"),
    "bits true": ({"target": {"density": 0.1, "bits": True}}, "invalid_value", "target.bits"),
    "no size": ({"target": {"bits": 4}}, "invalid_value", "target"),
    "two sizes": ({"target": {"bits": 4, "k": 5, "density": 0.1}}, "invalid_value", "target"),
    "no bits": ({"target": {"k": 5}}, "missing_field", "target.bits"),
    "text for k": ({"target": {"bits": 4, "k": "5"}}, "invalid_value", "target.k"),
    "fraction for k": ({"target": {"bits": 4, "k": 5.5}}, "invalid_value", "target.k"),
    "epsilon 8": ({"threat": {"norm": "linf", "epsilon": 8}}, "invalid_value", "threat.epsilon"),
    "norm l1": ({"threat": {"norm": "l1", "epsilon": 0.1}}, "invalid_value", "threat.norm"),
    "unknown field": ({"extra": 1}, "unknown_field", "extra"),
    "unknown training": ({"training": {"epochs": 3}}, "unknown_field", "training.epochs"),
    "negative seed": ({"seed": -1}, "invalid_value", "seed"),
    "target a list": ({"target": [1]}, "invalid_value", "target"),
}


def test_defaults_are_filled_in_and_survive_json() -> None:
    spec = from_json(JobSpec, GOOD)
    assert spec.training.rho == 0.1
    assert from_json(JobSpec, to_json(spec)) == spec
    jsonschema.validate(to_json(spec), json_schema(JobSpec))


@pytest.mark.parametrize("name", BAD)
def test_bad_values_are_named_by_both(name: str) -> None:
    changes, code, param = BAD[name]
    document = GOOD | changes
    with pytest.raises(InvalidInput) as refused:
        from_json(JobSpec, document)
    assert (refused.value.code, refused.value.param) == (code, param)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, json_schema(JobSpec))


def test_the_budget_is_the_density_times_the_weights() -> None:
    assert Target(bits=8, density=0.01).budget(430_500) == 4305
    assert Target(bits=8, k=7).budget(430_500) == 7


@pytest.mark.parametrize("target", [Target(8, k=0), Target(8, k=101), Target(8, density=0.001)])
def test_a_budget_out_of_range_is_refused(target: Target) -> None:
    with pytest.raises(InvalidInput) as refused:
        target.budget(100)
    assert refused.value.code == "k_out_of_range"


def test_the_catalogue_describes_every_architecture() -> None:
    entries = {(entry.kind, entry.name): entry.document for entry in catalogue()}
    lenet = entries["architecture", "lenet"]
    assert lenet["tensors"]["fc2.weight"] == {"shape": ["num_classes", 500], "optional": False}
    assert lenet["compressible"] == ["conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight"]
    counter = entries["architecture", "resnet18"]["tensors"]["bn1.num_batches_tracked"]
    assert counter == {"shape": [], "optional": True}
    jsonschema.Draft202012Validator.check_schema(entries["method", "atmc"]["spec_schema"])
    assert {name for kind, name in entries if kind == "attack"} == {"fgsm", "pgd"}
