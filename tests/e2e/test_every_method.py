"""Every method at every number of bits, by plain HTTP: the file is what the library makes."""

from typing import get_args

import httpx
import pytest
import torch

from atmc_core import artifact
from atmc_core.job.run import run
from atmc_core.networks.upload import ModelInput
from atmc_spec import Bits, MethodName, read_spec
from examples.digits import ARCHITECTURE, save_digits, train_classifier

#: What the other tests of this folder do not run: one of each kind of weights.
SUBSET = [("alr", 2), ("nap", 16)]
DENSITY = 0.1


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A few digits, and a classifier of them."""
    folder = tmp_path_factory.mktemp("every-method")
    save_digits(folder / "digits.npz", train=120, test=60)
    train_classifier(folder / "digits.npz", folder / "digits.safetensors", epochs=4)
    return folder


@pytest.fixture(scope="module")
def http(service_url):
    with httpx.Client(base_url=service_url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def uploaded(http, inputs):
    """The ids of the model and the data set."""
    ids = {}
    for noun, name, fields in (
        ("model", "digits.safetensors", {"architecture": ARCHITECTURE}),
        ("dataset", "digits.npz", {}),
    ):
        with (inputs / name).open("rb") as file:
            answer = http.post(f"/{noun}s", files={"file": (name, file)}, data=fields)
        assert answer.status_code == 201, answer.text
        ids[f"{noun}_id"] = answer.json()["id"]
    return ids


def _spec(method, bits):
    spec = {
        "method": method,
        "threat": {"norm": "linf", "epsilon": "16/255"},
        "evaluation": {"attacks": ["fgsm"], "curve_images": 5, "curve_steps": 1, "speed": False},
    }
    if method == "evaluate":
        return spec
    spec["threat"]["steps"] = 2
    spec["target"] = {"density": 1 if method == "da" else DENSITY, "bits": bits}
    spec["training"] = {"robust_epochs": 1}
    if method != "da":
        spec["training"] |= {"compression_epochs": 2, "finish_epochs": 1}
    return spec


def _posted(http, uploaded, method, bits):
    answer = http.post("/jobs", json=uploaded | _spec(method, bits))
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def _ended(http, job):
    while True:
        found = http.get(f"/jobs/{job}", params={"wait": 30}).json()
        if found["state"] in ("succeeded", "failed", "cancelled"):
            return found


def _check(http, inputs, folder, job, method, bits):
    """That the job succeeded, and its file meets the target and is what the library writes."""
    ended = _ended(http, job)
    assert ended["state"] == "succeeded", (method, bits, ended["error"])
    headline = ended["headline"]
    spec = read_spec(_spec(method, bits))
    model = ModelInput(inputs / "digits.safetensors", ARCHITECTURE)
    expected = run(
        *(spec, model, inputs / "digits.npz", folder),
        device=torch.device("cpu"),
        emit=lambda event: None,
    )
    timeless = {"seconds": None}
    assert headline | timeless == headline | expected | timeless, (method, bits)
    fetched = http.get(f"/jobs/{job}/artifacts/model.atmc", follow_redirects=True)
    if method == "evaluate":
        assert fetched.status_code == 404
        return
    content = fetched.content
    assert content == (folder / "results" / "model.atmc").read_bytes(), (method, bits)
    assert len(content) == headline["file_bytes"]
    tensors = [t for f in artifact.decode(content).factors.values() for t in f.tensors]
    weights = sum(
        w.numel() for w in artifact.decode(content).classifier().parameters() if w.ndim > 1
    )
    k = round((1 if method == "da" else DENSITY) * weights)
    assert 0 < sum(int(tensor.count_nonzero()) for tensor in tensors) <= k == headline["k"]
    if bits <= 8:
        assert all(len(torch.unique(tensor[tensor != 0])) <= 2**bits for tensor in tensors)
    if bits == 16:
        assert all(torch.equal(tensor, tensor.half().float()) for tensor in tensors)


@pytest.fixture
def one_thread_and_deterministic():
    """As the service's workers run (see the service's fixture)."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    yield
    torch.set_num_threads(before[0])
    torch.use_deterministic_algorithms(before[1])


def _run_all(http, uploaded, inputs, tmp_path, pairs):
    # All at first: while the service works on one, the library makes the one before.
    jobs = [(_posted(http, uploaded, *pair), *pair) for pair in pairs]
    for number, (job, method, bits) in enumerate(jobs):
        _check(http, inputs, tmp_path / str(number), job, method, bits)


@pytest.mark.usefixtures("one_thread_and_deterministic", "forked_evaluation")
def test_methods_work_through_the_api_as_through_the_library(http, uploaded, inputs, tmp_path):
    _run_all(http, uploaded, inputs, tmp_path, SUBSET)


@pytest.mark.slow
@pytest.mark.parametrize("method", get_args(MethodName))
@pytest.mark.usefixtures("one_thread_and_deterministic", "forked_evaluation")
def test_every_method_works_at_all_bits_through_the_api_as_through_the_library(
    http, uploaded, inputs, tmp_path, method
):
    bits = {"da": [32], "evaluate": [None]}.get(method, get_args(Bits))
    _run_all(http, uploaded, inputs, tmp_path, [(method, each) for each in bits])
