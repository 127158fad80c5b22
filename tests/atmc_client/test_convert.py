"""Checkpoints of every kind become files that the service takes, and nothing runs unasked."""

import pickle

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from atmc_client.cli.convert import convert
from atmc_core.networks.architectures import build
from atmc_core.networks.classifier import Normalization
from atmc_core.networks.upload import ModelInput, open_upload

torch.manual_seed(0)
NETWORK = build("digits_cnn", 10)
STATE = NETWORK.state_dict()


class Evil:
    def __reduce__(self):
        return (pytest.fail, ("it ran",))


def run(path, *options):
    return CliRunner().invoke(convert, [str(path), *options], standalone_mode=True)


def is_the_network(path):
    loaded = load_file(path)
    assert loaded.keys() == STATE.keys()
    return all(torch.equal(loaded[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize(
    ("saved", "options"),
    [
        (STATE, ()),
        ({"state_dict": STATE, "epoch": 3, "optimizer_states": [{"state": {}}]}, ()),
        ({"net": {"raw": STATE}, "ema": {"raw": STATE}}, ("--key", "ema.raw")),
        ({"state_dict": STATE, "hyper_parameters": pickle.Pickler}, ("--trust",)),
        (NETWORK, ("--trust",)),
    ],
    ids=["state dict", "checkpoint", "several", "more than tensors", "network"],
)
def test_the_tensors_come_out_under_their_names(tmp_path, saved, options):
    torch.save(saved, tmp_path / "model.pt")
    done = run(tmp_path / "model.pt", *options)
    assert done.exit_code == 0, done.output
    assert is_the_network(tmp_path / "model.safetensors")


def test_a_torchscript_program_is_converted_when_it_is_trusted(tmp_path):
    torch.jit.trace(NETWORK.eval(), torch.zeros(1, 1, 8, 8)).save(tmp_path / "model.pt")
    assert "--trust" in run(tmp_path / "model.pt").output
    assert run(tmp_path / "model.pt", "--trust").exit_code == 0
    assert is_the_network(tmp_path / "model.safetensors")


def test_a_whole_network_goes_out_as_onnx_that_the_service_reads(tmp_path):
    torch.save(NETWORK, tmp_path / "model.pt")
    done = run(tmp_path / "model.pt", "--trust", "--onnx", "1,8,8")
    assert done.exit_code == 0, done.output
    upload = open_upload(ModelInput(tmp_path / "model.onnx", "onnx"))
    classifier = upload.load((1, 8, 8)).classifier(Normalization()).eval()
    images = torch.rand(3, 1, 8, 8)
    assert torch.allclose(classifier(images), NETWORK.eval()(images), atol=1e-5)


def test_nothing_runs_unless_it_is_trusted(tmp_path):
    torch.save({"state_dict": STATE, "evil": Evil()}, tmp_path / "model.pt")
    done = run(tmp_path / "model.pt")
    assert done.exit_code == 2
    assert "--trust" in done.output
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("saved", "options", "says"),
    [
        ({"a": STATE, "b": STATE}, (), "--key"),
        ({"a": STATE, "b": STATE}, ("--key", "c"), "'a'"),
        ({"epoch": 3}, (), "no tensors"),
        (STATE, ("--onnx", "1,8,8"), "without --onnx"),
        (STATE, ("--onnx", "1,8"), "3,32,32"),
    ],
)
def test_what_cannot_be_is_said_with_what_to_do(tmp_path, saved, options, says):
    torch.save(saved, tmp_path / "model.pt")
    done = run(tmp_path / "model.pt", *options)
    assert done.exit_code == 2
    assert says in " ".join(done.output.split())


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"not a checkpoint")
    assert run(tmp_path / "model.pt").exit_code == 2
