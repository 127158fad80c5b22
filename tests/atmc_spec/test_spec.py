"""Job specs: defaults, ranges and names, enforced by the models and by their JSON Schema."""

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Literal

import jsonschema
import pytest

from atmc_spec import (
    PRESETS,
    SPECS,
    Accept,
    Bits,
    CompressionSpec,
    Effort,
    Evaluation,
    InvalidInput,
    MethodName,
    Target,
    Training,
    read_spec,
)
from atmc_spec.values import SMALLEST

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
    "bytes and ratio": (
        {"target": {"bits": 4, "max_bytes": 5, "nominal_ratio": 0.1}},
        "invalid_value",
        "target",
    ),
    "ratio 2": (
        {"target": {"bits": 4, "nominal_ratio": 2}},
        "invalid_value",
        "target.nominal_ratio",
    ),
    "no bytes": ({"target": {"bits": 4, "max_bytes": 0}}, "invalid_value", "target.max_bytes"),
    "structure": (
        {"target": {"bits": 4, "k": 9, "structure": "row"}},
        "invalid_value",
        "target.structure",
    ),
    "beta without TRADES": ({"training": {"beta": 6}}, "invalid_value", "training.beta"),
    "a decay without ema": (
        {"training": {"averaging": "swa", "averaging_decay": 0.9}},
        "invalid_value",
        "training.averaging_decay",
    ),
    "a time budget without auto": (
        {"training": {"time_budget_s": 60, "preset": "fast"}},
        "invalid_value",
        "training.time_budget_s",
    ),
    "a penalty without codebooks": (
        {"target": {"bits": 16, "k": 9}, "training": {"rho": 0.2}},
        "invalid_value",
        "training.rho",
    ),
    "a basis without factors": (
        {"method": "al0", "training": {"rank_fraction": 0.2}},
        "invalid_value",
        "training.rank_fraction",
    ),
    "an order of entries for channels": (
        {
            "target": {"bits": 4, "k": 9, "structure": "channel"},
            "training": {"importance": "magnitude"},
        },
        "invalid_value",
        "training.importance",
    ),
    "multiply-adds by single entries": (
        {"target": {"bits": 4, "macs": 0.25}},
        "invalid_value",
        "target.macs",
    ),
    "multiply-adds and entries": (
        {"target": {"bits": 4, "macs": 0.25, "k": 9, "structure": "channel"}},
        "invalid_value",
        "target",
    ),
    "what int8 may lose without int8": (
        {"target": {"bits": 4, "k": 9, "int8_drop": 0.1}},
        "invalid_value",
        "target.int8_drop",
    ),
    "an order of entries for low rank": (
        {"method": "alr", "training": {"importance": "magnitude"}},
        "invalid_value",
        "training.importance",
    ),
    "a schedule for a fixed support": (
        {"method": "ap", "training": {"density_schedule": "linear"}},
        "invalid_value",
        "training.density_schedule",
    ),
    "loss": ({"training": {"loss": "mart"}}, "invalid_value", "training.loss"),
    "schedule": ({"training": {"schedule": "linear"}}, "invalid_value", "training.schedule"),
    "no bits": ({"target": {"k": 5}}, "missing_field", "target.bits"),
    "text for k": ({"target": {"bits": 4, "k": "5"}}, "invalid_value", "target.k"),
    "fraction for k": ({"target": {"bits": 4, "k": 5.5}}, "invalid_value", "target.k"),
    "epsilon 0": ({"threat": {"norm": "linf", "epsilon": 0}}, "invalid_value", "threat.epsilon"),
    "epsilon 8": ({"threat": {"norm": "linf", "epsilon": 8}}, "invalid_value", "threat.epsilon"),
    "text for epsilon": (
        {"threat": {"norm": "linf", "epsilon": "8 / 255"}},
        "invalid_value",
        "threat.epsilon",
    ),
    "norm l1": ({"threat": {"norm": "l1", "epsilon": 0.1}}, "invalid_value", "threat.norm"),
    "unknown field": ({"extra": 1}, "unknown_field", "extra"),
    "unknown training": ({"training": {"epochs": 3}}, "unknown_field", "training.epochs"),
    "no target": ({"target": None}, "invalid_value", "target"),
    "unknown attack": (
        {"evaluation": {"attacks": ["fgsm", "magic"]}},
        "invalid_value",
        "evaluation.attacks.1",
    ),
    "no attack": ({"evaluation": {"attacks": []}}, "invalid_value", "evaluation.attacks"),
    "an attack twice": (
        {"evaluation": {"attacks": ["fgsm", "fgsm"]}},
        "invalid_value",
        "evaluation.attacks",
    ),
    "autoattack and one of its own": (
        {"evaluation": {"attacks": ["autoattack", "square"]}},
        "invalid_value",
        "evaluation.attacks",
    ),
    "no images": ({"evaluation": {"max_images": 0}}, "invalid_value", "evaluation.max_images"),
    "unknown level": ({"evaluation": {"level": "best"}}, "invalid_value", "evaluation.level"),
    "accept 2": ({"accept": {"robust_accuracy": 2}}, "invalid_value", "accept.robust_accuracy"),
    "batches of one image": (
        {"training": {"batch_size": 1}},
        "invalid_value",
        "training.batch_size",
    ),
    "negative seed": ({"seed": -1}, "invalid_value", "seed"),
    "target a list": ({"target": [1]}, "invalid_value", "target"),
}


def test_defaults_are_filled_in_and_survive_json() -> None:
    spec = read_spec(GOOD)
    assert spec.training.rho == 0.1
    assert read_spec(spec.to_json()) == spec
    jsonschema.validate(spec.to_json(), SPECS["atmc"].json_schema())


@pytest.mark.parametrize("name", BAD)
def test_bad_values_are_named_by_both(name: str) -> None:
    changes, code, param = BAD[name]
    document = GOOD | changes
    with pytest.raises(InvalidInput) as refused:
        read_spec(document)
    assert (refused.value.code, refused.value.param) == (code, param)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, SPECS["atmc"].json_schema())


def test_epsilon_may_be_a_fraction() -> None:
    threat = {"norm": "linf", "epsilon": "8/255"}
    spec = read_spec(GOOD | {"threat": threat})
    assert spec.threat.epsilon == 8 / 255
    assert spec.to_json()["threat"]["epsilon"] == 8 / 255
    jsonschema.validate(GOOD | {"threat": threat}, SPECS["atmc"].json_schema())


def test_epsilon_in_grey_levels_is_refused_with_the_way_to_write_it() -> None:
    with pytest.raises(InvalidInput, match='for 8 grey levels write "8/255"'):
        read_spec(GOOD | {"threat": {"norm": "linf", "epsilon": 8}})


@pytest.mark.parametrize("epsilon", ["0/255", "8/0", "-8/255", "300/255", "nan", "8"])
def test_a_fraction_out_of_range_is_refused(epsilon: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_spec(GOOD | {"threat": {"norm": "linf", "epsilon": epsilon}})
    assert (refused.value.code, refused.value.param) == ("invalid_value", "threat.epsilon")


def test_a_level_chooses_attacks_and_images_and_each_can_be_overridden() -> None:
    assert Evaluation().level == "quick"
    assert Evaluation().attack_names(10) == ("fgsm", "pgd", "pgd_smooth")
    assert (Evaluation().image_limit, Evaluation(level="full").image_limit) == (1_000, 10_000)
    chosen = Evaluation.read({"level": "full", "attacks": ["pgd"], "max_images": 50})
    assert (chosen.attack_names(10), chosen.image_limit) == (("pgd",), 50)
    assert Evaluation.read(chosen.to_json()) == chosen


EVALUATE: dict[str, Any] = {"method": "evaluate", "threat": {"norm": "linf", "epsilon": 0.1}}


def test_an_evaluation_alone_needs_no_target() -> None:
    spec = read_spec(EVALUATE)
    assert read_spec(spec.to_json()) == spec
    jsonschema.validate(EVALUATE, SPECS["evaluate"].json_schema())


@pytest.mark.parametrize(
    ("param", "changes"),
    [
        ("target", {"target": {"density": 0.1, "bits": 4}}),
        ("training.robust_epochs", {"training": {"robust_epochs": 3}}),
        ("threat.steps", {"threat": {"norm": "linf", "epsilon": 0.1, "steps": 9}}),
        ("threat.step_size", {"threat": {"norm": "linf", "epsilon": 0.1, "step_size": 0.1}}),
        ("threat.backward", {"threat": {"norm": "linf", "epsilon": 0.1, "backward": "plain"}}),
        ("accept.file_ratio", {"accept": {"file_ratio": 0.1}}),
        ("accept.clean_accuracy_drop", {"accept": {"clean_accuracy_drop": 0.1}}),
    ],
)
def test_an_evaluation_alone_refuses_what_it_would_ignore(
    param: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_spec(EVALUATE | changes)
    assert (refused.value.code, refused.value.param) == ("invalid_value", param)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(EVALUATE | changes, SPECS["evaluate"].json_schema())


def test_the_budget_is_the_density_times_the_weights() -> None:
    assert Target(bits=8, density=0.01).given_k(430_500) == 4305
    assert Target(bits=8, k=7).given_k(430_500) == 7


@pytest.mark.parametrize(("bits", "small"), [(1, 16), (8, 16), (16, 16), (32, 32)])
def test_small_tensors_have_half_precision_unless_nothing_is_to_be_rounded(
    bits: Bits, small: int
) -> None:
    target = GOOD["target"] | {"bits": bits}
    stored = read_spec(GOOD | {"target": target}).to_json()["target"]
    assert stored["small_tensor_bits"] == small
    for given in (8, 32):
        spec = read_spec(GOOD | {"target": target | {"small_tensor_bits": given}})
        assert spec.to_json()["target"]["small_tensor_bits"] == given


@pytest.mark.parametrize(
    "target", [Target(bits=8, k=0), Target(bits=8, k=101), Target(bits=8, density=0.001)]
)
def test_a_budget_out_of_range_is_refused(target: Target) -> None:
    with pytest.raises(InvalidInput) as refused:
        target.given_k(100)
    assert refused.value.code == "k_out_of_range"


def test_a_preset_sets_what_is_left_out() -> None:
    training = Training.read({"preset": "fast", "finish_epochs": 7, "averaging": "ema"})
    fast = PRESETS["fast"]
    assert training.effort() == dataclasses.replace(fast, finish_epochs=7, averaging="ema")
    assert Training().effort() == Effort(20, 30, 10, "cosine", "none")


def test_a_single_nonzero_is_the_least_nominal_ratio() -> None:
    Target(bits=8, nominal_ratio=40 / (32 * 100)).given_k(100)
    Target(bits=32, nominal_ratio=1 / 100).given_k(100)
    for target in (
        Target(bits=8, nominal_ratio=39 / (32 * 100)),
        Target(bits=32, nominal_ratio=0.0099),
    ):
        with pytest.raises(InvalidInput) as refused:
            target.given_k(100)
        assert (refused.value.code, refused.value.param) == (
            "k_out_of_range",
            "target.nominal_ratio",
        )


@pytest.mark.parametrize(
    ("method", "changes", "param"),
    [
        ("alr", {"target": {"k": 9, "bits": 8, "structure": "channel"}}, "target.structure"),
        ("da", {"target": {"k": 9, "bits": 8, "structure": "channel"}}, "target.structure"),
        ("alr", {"target": {"macs": 0.5, "bits": 8, "structure": "channel"}}, "target.structure"),
        ("nap", {"training": {"loss": "trades"}}, "training.loss"),
    ],
)
def test_a_method_refuses_what_it_would_ignore(
    method: MethodName, changes: dict[str, Any], param: str
) -> None:
    document = GOOD | changes | {"method": method}
    with pytest.raises(InvalidInput) as refused:
        read_spec(document)
    assert (refused.value.code, refused.value.param) == ("invalid_value", param)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, SPECS[method].json_schema())
    jsonschema.validate(document | {"method": "ap"}, SPECS["ap"].json_schema())


def test_a_share_of_the_multiply_adds_is_a_bound_and_a_share_of_the_weights_is_rounded() -> None:
    assert Target(bits=8, macs=0.25, structure="channel").given_k(999) == 249
    assert Target(bits=8, density=0.25).given_k(999) == 250
    with pytest.raises(InvalidInput, match=r"macs 0\.0001 leaves 0") as refused:
        Target(bits=8, macs=0.0001, structure="channel").given_k(999)
    assert refused.value.param == "target.macs"


def test_a_spec_stored_with_every_default_is_read_by_a_method_that_ignores_some() -> None:
    stored = read_spec(GOOD | {"method": "nap"}).to_json()
    assert stored["training"]["rho"] == 0.1
    assert read_spec(stored).to_json() == stored
    jsonschema.validate(stored, SPECS["nap"].json_schema())
    alone = read_spec(EVALUATE).to_json()
    assert (alone["threat"]["steps"], alone["training"]["preset"]) == (7, "standard")
    jsonschema.validate(alone, SPECS["evaluate"].json_schema())


def test_a_worker_reads_a_method_of_its_own() -> None:
    class Halved(CompressionSpec):
        method: Literal["halved"]
        half: int = 2

    document = GOOD | {"method": "halved", "half": 3}
    spec = read_spec(document, {**SPECS, "halved": Halved})
    assert isinstance(spec, Halved)
    assert (spec.half, spec.target.density) == (3, 0.1)
    with pytest.raises(InvalidInput, match="'halved' is not one of nap, ") as refused:
        read_spec(document)
    assert (refused.value.code, refused.value.param) == ("invalid_value", "method")
    jsonschema.validate(document, Halved.json_schema())


def test_threshold_s_limit_itself_meets_it_however_a_difference_is_rounded() -> None:
    drop, robust = Accept(clean_accuracy_drop=0.02, robust_accuracy=0.5).thresholds()[::-1]
    assert drop.is_met(0.98 - 0.96)
    assert not drop.is_met(0.0201)
    assert robust.is_met(0.5)
    assert not robust.is_met(0.4999)


def test_the_spec_needs_neither_torch_nor_numpy() -> None:
    script = "import sys, atmc_spec; print({'torch', 'numpy', 'atmc_core'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert said.stdout == "set()\n", said.stderr


@pytest.mark.parametrize("method", SPECS)
def test_no_number_can_be_so_small_or_large_that_the_job_s_arithmetic_fails(method: str) -> None:
    """Each has two ends; what is divided by or squared in float32 has one away from 0."""

    def numbers(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
        for name, entry in schema["properties"].items():
            inner = f"{path}.{name}".strip(".")
            types = entry.get("type", [])
            if {"integer", "number"} & set([types] if isinstance(types, str) else types):
                yield inner, entry
            if "properties" in entry:
                yield from numbers(entry, inner)

    found = dict(numbers(SPECS[method].json_schema()))
    assert len(found) > 15
    # These shares become counts, which are checked at the door; k is, too.
    shares = {"target.density", "target.nominal_ratio", "accept.file_ratio"}
    for name, entry in found.items():
        if name == "target.k" or "const" in entry or "enum" in entry:
            continue
        assert "maximum" in entry, name
        least = entry.get("minimum", entry.get("exclusiveMinimum"))
        assert least is not None, name
        if name not in shares:
            assert "exclusiveMinimum" not in entry, name
    assert found["threat.epsilon"]["minimum"] == SMALLEST
