"""Bad input gets a clear answer at once, by both ways in, and leaves nothing behind.

One test for each kind that the service promises to refuse before it queues a job.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import safetensors.torch
import torch

from tests.api import files
from tests.api.conftest import Service, assert_problem

Send = Callable[[bytes], httpx.Response]


@pytest.fixture(params=["model", "job"])
def send_model(request: pytest.FixtureRequest, shared: Service) -> Send:
    """Sends a model's file, alone or with a job."""
    return {"model": shared.send_model, "job": shared.send_whole_job}[request.param]


@pytest.fixture(params=["dataset", "job"])
def send_dataset(request: pytest.FixtureRequest, shared: Service) -> Send:
    """Sends a data set's file, alone or with a job."""
    if request.param == "dataset":
        return shared.send_dataset
    return lambda content: shared.send_whole_job(dataset=content)


@pytest.fixture(autouse=True)
def _nothing_left(shared: Service) -> Any:
    yield
    assert shared.stored_files() == []
    assert shared.http.get("/jobs").json()["data"] == []


def test_a_pickle_that_is_more_than_tensors(send_model: Send, tmp_path: Path) -> None:
    witness = tmp_path / "it ran"
    pickle = files.malicious_pickle(f"touch '{witness}'")
    for content in (files.torch_zip(pickle), pickle):
        detail = assert_problem(send_model(content), 422, "unsafe_pickle")
        assert "nothing was run" in detail
    assert not witness.exists()


def test_a_whole_pickled_module(send_model: Send) -> None:
    detail = assert_problem(
        send_model(files.torch_file(torch.nn.Linear(2, 2))), 422, "unsafe_pickle"
    )
    assert "state_dict()" in detail


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.uint16], ids=str)
def test_weights_of_a_type_that_is_not_trained(send_model: Send, dtype: torch.dtype) -> None:
    state = {key: torch.from_numpy(array).to(dtype) for key, array in files.weights().items()}
    for content in (files.torch_file(state), safetensors.torch.save(state)):
        detail = assert_problem(send_model(content), 422, "tensor_mismatch")
        assert "expected one of BF16, F16, F32, F64" in detail


def test_torchscript(send_model: Send) -> None:
    detail = assert_problem(send_model(files.torchscript_file()), 422, "torchscript_refused")
    assert "python -c" in detail


@pytest.mark.parametrize(
    "content",
    [
        files.safetensors_file()[:-100],
        files.safetensors_file()[:50],
        files.npz_file(),
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"",
    ],
    ids=["truncated", "truncated header", "a data set", "an image", "empty"],
)
def test_a_truncated_or_renamed_safetensors_file(send_model: Send, content: bytes) -> None:
    assert_problem(send_model(content), 422, "malformed_model")


@pytest.mark.parametrize(
    ("tensors", "param", "said"),
    [
        ({"fc2.weight": np.zeros((10, 9), "float32")}, "fc2.weight", "is [10, 9], expected [10, "),
        ({"fc1.weight": None}, "fc1.weight", "1 missing keys (fc1.weight)"),
        ({"fc3.weight": np.zeros(2, "float32")}, "fc3.weight", "1 unexpected keys (fc3.weight)"),
        ({"conv1.bias": np.zeros(32, "int64")}, "conv1.bias", "is I64"),
    ],
)
def test_a_state_dict_that_does_not_fit(
    send_model: Send, tensors: dict[str, Any], param: str, said: str
) -> None:
    whole = {key: t for key, t in (files.weights() | tensors).items() if t is not None}
    response = send_model(files.safetensors_file(whole))
    assert said in assert_problem(response, 422, "tensor_mismatch", param)


def test_an_unknown_architecture(shared: Service) -> None:
    spec = {"architecture": "lenet6", **files.SPEC}
    for response in (shared.send_model(architecture="lenet6"), shared.send_whole_job(spec=spec)):
        detail = assert_problem(response, 422, "unknown_architecture", "architecture")
        assert "lenet, " in detail


@pytest.mark.parametrize("k", [0, files.dense_weights() + 1])
def test_k_of_zero_or_above_the_number_of_weights(shared: Service, k: int) -> None:
    target = {"target": {"k": k, "bits": 4}}
    spec = {"architecture": files.ARCHITECTURE, **files.SPEC, **target}
    detail = assert_problem(shared.send_whole_job(spec=spec), 422, "k_out_of_range", "target.k")
    assert f"from 1 to {files.dense_weights()}" in detail


@pytest.mark.parametrize("bits", [0, 9, 17, 64])
def test_bits_that_are_not_1_to_8_16_or_32(shared: Service, bits: int) -> None:
    target = {"target": {"density": 0.1, "bits": bits}}
    spec = {"architecture": files.ARCHITECTURE, **files.SPEC, **target}
    detail = assert_problem(shared.send_whole_job(spec=spec), 422, "invalid_value", "target.bits")
    assert f"is {bits}, expected one of 1, 2, 3, 4, 5, 6, 7, 8, 16, 32" in detail


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"colour": "red"}, "colour"),
        ({"threat": {"norm": "linf", "epsilon": 0.1, "eps": 0.1}}, "threat.eps"),
    ],
)
def test_an_unknown_field(shared: Service, changes: dict[str, Any], param: str) -> None:
    spec = {"architecture": files.ARCHITECTURE, **files.SPEC, **changes}
    assert_problem(shared.send_whole_job(spec=spec), 422, "unknown_field", param)


def test_a_data_set_that_holds_objects(send_dataset: Send) -> None:
    content = files.npz_file(files.images() | {"y_train": np.array([None] * 20)})
    assert_problem(send_dataset(content), 422, "object_array", "y_train")


def test_a_data_set_that_inflates_past_the_limit(send_dataset: Send) -> None:
    content = files.npz_file(files.images() | {"x_train": np.zeros((9999, 64, 64), "uint8")})
    assert_problem(send_dataset(content), 422, "dataset_too_large")


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("x_train", np.zeros((20, 8, 8), "float32")),
        ("x_train", np.zeros((20, 64), "uint8")),
        ("y_test", np.zeros(20, "float32")),
        ("y_test", np.zeros((20, 10), "int64")),
        ("y_test", np.zeros(21, "int64")),
    ],
)
def test_images_or_labels_of_the_wrong_type_or_shape(
    send_dataset: Send, name: str, array: np.ndarray
) -> None:
    content = files.npz_file(files.images() | {name: array})
    assert_problem(send_dataset(content), 422, "bad_array", name)


def test_a_file_over_the_size_limit(shared: Service) -> None:
    over = bytes(1_000_001)
    for response, param in (
        (shared.send_model(over), "file"),
        (shared.send_dataset(over), "file"),
        (shared.send_whole_job(model=over), "model"),
        (shared.send_whole_job(dataset=over), "dataset"),
    ):
        assert_problem(response, 413, "file_too_large", param)
