"""The `atmc` command against a running API."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from atmc_client import Client
from atmc_core.networks.architectures import build
from tests.atmc_client.conftest import in_a_process

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A digits network and a small data set that fits it."""
    folder = tmp_path_factory.mktemp("files")
    torch.manual_seed(0)
    save_file(build("digits_cnn", 10).state_dict(), folder / "model.safetensors")
    images = np.zeros((20, 8, 8), np.uint8)
    labels = np.arange(20) % 10
    np.savez(folder / "data.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    return folder


@pytest.fixture
def submit(atmc, files):
    """Submits the files with further options; by default without waiting."""

    def run(*options, **more):
        model, data = files / "model.safetensors", files / "data.npz"
        given = ("--model", model, "--architecture", "digits_cnn", "--data", data, "--no-wait")
        return atmc("submit", *given, *options, **more)

    return run


OPTIONS = ("--density", "0.1", "--bits", "4", "--epsilon", "0.1")


def test_submit_show_list_cancel(atmc, submit, api_url):
    submitted = submit(*OPTIONS, "--name", "first", "--set", "training.robust_epochs=1", "--json")
    assert submitted.returncode == 0, submitted.stderr
    job = json.loads(submitted.stdout)
    assert job["state"] == "queued"
    assert job["name"] == "first"
    assert job["spec"]["target"] == {"density": 0.1, "bits": 4}
    assert job["spec"]["training"] == {"robust_epochs": 1}

    shown = atmc("show", job["id"], "--json")
    assert json.loads(shown.stdout) == job
    assert f"{job['id']} (first): queued" in atmc("show", job["id"]).stdout
    from_environment = atmc("show", job["id"], server=None, environment={"ATMC_SERVER": api_url})
    assert from_environment.returncode == 0

    listed = json.loads(atmc("list", "--state", "queued", "--json").stdout)
    assert job["id"] in [each["id"] for each in listed]
    assert job["id"] in atmc("list").stdout

    cancelled = json.loads(atmc("cancel", job["id"], "--json").stdout)
    assert cancelled["state"] == "cancelled"
    events = atmc("show", job["id"], "--events", "--json").stdout.splitlines()
    assert [json.loads(event)["state"] for event in events] == ["queued", "cancelled"]
    assert "state=cancelled" in atmc("show", job["id"], "--events").stdout


def test_a_spec_comes_from_standard_input(submit):
    spec = {
        "method": "atmc",
        "target": {"k": 100, "bits": 8},
        "threat": {"norm": "l2", "epsilon": 0.5},
    }
    done = submit("--spec", "-", "--bits", "2", "--json", stdin=json.dumps(spec))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["spec"] == spec | {"target": {"k": 100, "bits": 2}}


def test_a_normalisation_is_sent(submit):
    done = submit(*OPTIONS, "--mean", "0.5", "--std", "0.25")
    assert done.returncode == 0, done.stderr
    refused = submit(*OPTIONS, "--mean", "0.5,0.5", "--std", "0.25,0.25")
    assert refused.returncode == 2


def test_a_list_goes_over_pages_and_stops_at_its_limit(submit, api_url, monkeypatch):
    names = ["a", "b", "c"]
    for name in names:
        assert submit(*OPTIONS, "--name", name).returncode == 0
    monkeypatch.setattr("atmc_client.sync.calls.PAGE", 2)
    with Client(api_url) as client:
        assert [job["name"] for job in client.list_jobs(limit=3)] == names[::-1]


def test_waiting_has_an_end(submit, api_url):
    job = json.loads(submit(*OPTIONS, "--json").stdout)
    with Client(api_url) as client, pytest.raises(TimeoutError, match="still queued after 1 s"):
        client.wait(job["id"], timeout_s=1)


@pytest.mark.parametrize("command", ["architectures", "methods", "attacks"])
def test_the_catalogue_is_shown(atmc, command):
    names = {entry["name"] for entry in json.loads(atmc(command, "--json").stdout)}
    shown = atmc(command)
    assert shown.returncode == 0
    assert names
    assert all(name in shown.stdout for name in names)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--density", "0.1", "--bits", "9", "--epsilon", "0.1"), "invalid_value"),
        (("--k", "10000000", "--bits", "4", "--epsilon", "0.1"), "k_out_of_range"),
        ((*OPTIONS, "--set", "training.speed=9"), "unknown_field"),
        ((*OPTIONS, "--architecture", "alexnet"), "unknown_architecture"),
        ((*OPTIONS, "--architecture", "lenet"), "tensor_mismatch"),
        (("--bits", "4", "--epsilon", "0.1"), None),
        ((*OPTIONS, "--k", "5"), None),
        ((*OPTIONS, "--mean", "0.5"), None),
        ((*OPTIONS, "--mean", "grey"), None),
        ((*OPTIONS, "--spec", "no-such-file.json"), None),
    ],
)
def test_what_is_refused_ends_with_2_and_says_why(submit, options, code):
    done = submit(*options)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert (code or "rror") in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_over_the_limit_is_refused_while_it_is_sent(atmc, new_files):
    large = new_files / "large.npz"
    large.write_bytes(bytes(7_000_000))
    model = ("--model", new_files / "model.safetensors", "--architecture", "digits_cnn")
    done = atmc("submit", *model, "--data", large, *OPTIONS)
    assert done.returncode == 2, done.stderr
    assert "file_too_large (dataset)" in done.stderr


def test_so_is_one_that_goes_in_pieces_and_it_is_named(atmc, tmp_path):
    large = tmp_path / "large.npz"
    large.write_bytes(bytes(9_000_000))
    done = atmc("upload", large, environment={"XDG_STATE_HOME": str(tmp_path)})
    assert done.returncode == 2, done.stderr
    assert "file_too_large (large.npz)" in done.stderr


def test_an_unknown_job_is_refused(atmc):
    for command in ("show", "cancel", "download"):
        done = atmc(command, "job_0")
        assert done.returncode == 2
        assert "not_found" in done.stderr


def test_no_files_yet_is_not_a_success(atmc, submit, tmp_path):
    job = json.loads(submit(*OPTIONS, "--json").stdout)
    done = atmc("download", job["id"], "-o", tmp_path)
    assert done.returncode == 1
    assert "no files yet" in done.stderr
    assert atmc("download", job["id"], "model.atmc").returncode == 2


def test_no_server_ends_with_3(closed_port):
    """As a user runs it: in a process of its own."""
    done = in_a_process("--server", f"http://127.0.0.1:{closed_port}", "list")
    assert done.returncode == 3
    assert "atmc serve" in done.stderr


def test_the_client_imports_neither_torch_nor_the_service():
    script = (
        "import sys, atmc_client, atmc_client.cli;"
        "ours = {'api', 'worker', 'jobstore', 'atmc_core', 'atmc_spec', 'launcher'};"
        "ours |= {'torch', 'numpy'};"
        "print(sorted(ours & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_file_is_inspected(atmc, tmp_path):
    """The kept network at 1/400: its bytes are those of its parts."""
    path = ROOT / "benchmarks" / "results" / "networks" / "mnist-0.0025-seed0.atmc"
    done = atmc("inspect", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "lenet, 10 classes: 7,442 non-zeros of 4 bits" in done.stdout
    described = json.loads(atmc("inspect", path, "--json").stdout)
    parts = described["parts"]
    assert sum(part["bytes"] for part in parts.values()) == pytest.approx(path.stat().st_size, 1e-3)
    assert parts["positions"]["bytes"] < 0.9 * parts["positions"]["bound"]
    assert described["weights"][2] == {
        "name": "fc1.weight",
        "shape": [500, 800],
        "u": {"nonzeros": 78, "values": 16},
        "v": {"nonzeros": 46, "values": 16},
        "c": {"nonzeros": 3_189, "values": 16},
    }
    (tmp_path / "cut.atmc").write_bytes(path.read_bytes()[:-1])
    done = atmc("inspect", tmp_path / "cut.atmc")
    assert done.returncode == 2
    assert "cut or altered" in done.stderr
    assert atmc("inspect", tmp_path / "none.atmc").returncode == 2
