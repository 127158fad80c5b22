"""The spec that options make, alone and over a file."""

import io
import json

import click
import pytest

from atmc_client.cli.spec import build_spec
from atmc_client.cli.submit import NumberOrFraction


def made(file: object = None, *, fields=None, settings=(), **sizes):
    text = (
        None if file is None else io.StringIO(file if isinstance(file, str) else json.dumps(file))
    )
    sizes = dict.fromkeys(("k", "density", "nominal_ratio", "max_bytes")) | sizes
    return build_spec(text, sizes=sizes, fields=fields or {}, settings=settings)


def test_options_alone_make_a_whole_spec():
    spec = made(
        density=0.1,
        fields={"target.bits": 4, "threat.epsilon": 0.1, "seed": None},
        settings=["training.robust_epochs=3", "evaluation.pgd_steps=10"],
    )
    assert spec == {
        "method": "atmc",
        "target": {"density": 0.1, "bits": 4},
        "threat": {"norm": "linf", "epsilon": 0.1},
        "training": {"robust_epochs": 3},
        "evaluation": {"pgd_steps": 10},
    }


def test_a_method_that_takes_no_target_gets_none():
    fields = {"method": "evaluate", "threat.epsilon": "8/255"}
    threat = {"norm": "linf", "epsilon": "8/255"}
    assert made(fields=fields) == {"method": "evaluate", "threat": threat}


def test_options_win_over_the_file_and_leave_the_rest():
    file = {"method": "atmc", "target": {"k": 100, "bits": 8}, "seed": 3}
    spec = made(file, density=0.5, fields={"target.bits": 2})
    assert spec == {"method": "atmc", "target": {"density": 0.5, "bits": 2}, "seed": 3}


@pytest.mark.parametrize(
    ("setting", "value"),
    [("a.b=1", 1), ("a.b=1e-3", 1e-3), ("a.b=null", None), ("a.b=l2", "l2"), ("a.b=x=y", "x=y")],
)
def test_a_setting_is_json_or_else_a_string(setting, value):
    assert made({}, settings=[setting]) == {"a": {"b": value}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 1, "density": 0.1}, "give one"),
        ({"max_bytes": 1, "nominal_ratio": 0.1}, "--nominal-ratio and --max-bytes|give one"),
        ({"file": "{"}, "not JSON"),
        ({"file": "[]"}, "not a JSON object"),
        ({"settings": ["epochs"]}, "PATH=VALUE"),
        ({"settings": [".x=1"]}, "PATH=VALUE"),
        ({"file": {"target": 3}, "k": 1}, "target is not an object"),
        ({"file": {"target": 3}, "settings": ["target.k=1"]}, "target is not an object"),
    ],
)
def test_contradictions_are_usage_errors(arguments, message):
    with pytest.raises(click.UsageError, match=message):
        made(**arguments)


def test_an_epsilon_is_a_number_or_goes_to_the_service_as_it_stands():
    convert = NumberOrFraction().convert
    assert (convert("0.1", None, None), convert("8/255", None, None)) == (0.1, "8/255")
