"""Whether a state dict's tensors are those of the architecture it is sent for."""

from typing import Any

import pytest

from api.inspection import Fit, TensorHeader, fit
from api.problems import Problem

ARCHITECTURE: dict[str, Any] = {
    "tensors": {
        "conv.weight": {"shape": [4, 1, 3, 3], "optional": False},
        "norm.num_batches_tracked": {"shape": [], "optional": True},
        "fc.weight": {"shape": ["num_classes", 16], "optional": False},
        "fc.bias": {"shape": ["num_classes"], "optional": False},
    },
    "compressible": ["conv.weight", "fc.weight"],
}
GOOD = {
    "conv.weight": TensorHeader("F32", (4, 1, 3, 3)),
    "norm.num_batches_tracked": TensorHeader("I64", ()),
    "fc.weight": TensorHeader("F16", (10, 16)),
    "fc.bias": TensorHeader("BF16", (10,)),
}


def refused(tensors: dict[str, TensorHeader]) -> Problem:
    with pytest.raises(Problem) as caught:
        fit(tensors, "net", ARCHITECTURE)
    assert caught.value.code == "tensor_mismatch"
    return caught.value


def test_the_number_of_classes_and_of_dense_weights_are_read_off_the_header() -> None:
    assert fit(GOOD, "net", ARCHITECTURE) == Fit({"num_classes": 10}, 4 * 9 + 10 * 16)


def test_an_optional_tensor_may_be_absent() -> None:
    tensors = {key: t for key, t in GOOD.items() if key != "norm.num_batches_tracked"}
    assert fit(tensors, "net", ARCHITECTURE).dense_weights == 196


def test_missing_and_unexpected_keys_and_wrong_shapes_are_all_listed() -> None:
    tensors = GOOD | {"fc.weight": TensorHeader("F32", (10, 15)), "head": GOOD["fc.bias"]}
    del tensors["conv.weight"]
    problem = refused(tensors)
    assert problem.param == "conv.weight"
    assert "1 missing keys (conv.weight)" in problem.detail
    assert "1 unexpected keys (head)" in problem.detail
    assert "fc.weight is [10, 15], expected [10, 16]" in problem.detail


def test_one_name_is_one_number() -> None:
    problem = refused(GOOD | {"fc.bias": TensorHeader("F32", (11,))})
    assert problem.param == "fc.bias"
    assert "is [11], expected [10]" in problem.detail


@pytest.mark.parametrize(
    ("key", "tensor"),
    [
        ("fc.weight", TensorHeader("I64", (10, 16))),
        ("conv.weight", TensorHeader("U8", (4, 1, 3, 3))),
        ("norm.num_batches_tracked", TensorHeader("BOOL", ())),
    ],
)
def test_numbers_of_another_type_are_refused(key: str, tensor: TensorHeader) -> None:
    problem = refused(GOOD | {key: tensor})
    assert problem.param == key
    assert f"is {tensor.dtype}, expected one of" in problem.detail


def test_a_classifier_has_two_classes_at_least() -> None:
    for classes in (0, 1):
        tensors = {
            "fc.weight": TensorHeader("F32", (classes, 16)),
            "fc.bias": TensorHeader("F32", (classes,)),
        }
        problem = refused(GOOD | tensors)
        assert problem.param == "fc.weight"
        assert "expected [num_classes >= 2, 16]" in problem.detail


def test_a_long_list_is_cut_short() -> None:
    problem = refused(GOOD | {f"extra{n}": GOOD["fc.bias"] for n in range(50)})
    assert (
        "50 unexpected keys (extra0, extra1, extra2, extra3, extra4 and 45 more)" in problem.detail
    )


def test_a_key_that_utf_8_cannot_hold_is_told_escaped() -> None:
    problem = refused(GOOD | {"\ud800": GOOD["fc.bias"]})
    assert problem.param == "\\ud800"
    problem.detail.encode()


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.net.", "_orig_mod.module."])
def test_a_prefix_of_all_names_is_left_out(prefix: str) -> None:
    tensors = {prefix + key: tensor for key, tensor in GOOD.items()}
    assert fit(tensors, "net", ARCHITECTURE) == Fit({"num_classes": 10}, 196)


def test_what_does_not_fit_behind_a_prefix_is_told_with_the_prefix() -> None:
    tensors = {f"model.{key}": tensor for key, tensor in GOOD.items() if key != "fc.bias"}
    problem = refused(tensors | {"model.head.bias": GOOD["fc.bias"]})
    assert "behind the prefix 'model.': 1 missing keys (fc.bias)" in problem.detail
    assert "1 unexpected keys (model.head.bias)" in problem.detail


def test_a_long_prefix_and_many_names_cost_no_time() -> None:
    names = [f"{'a.' * 10_000}{number}.fc.weight" for number in range(200)]
    refused(dict.fromkeys(names, GOOD["fc.weight"]))
