"""The README's commands are true."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from atmc_core.networks.architectures import build
from examples.digits import save_digits, train_classifier
from tests.docs.blocks import ROOT, block, commands, named, run

README = (ROOT / "README.md").read_text()
SERVER = "http://127.0.0.1:8000"
SHORT = """
[profile.default.options.submit]
set = [
    "training.robust_epochs=1", "training.compression_epochs=1", "training.finish_epochs=1",
    "evaluation.attacks=[\\"fgsm\\"]", "evaluation.speed=false", "evaluation.curve_images=2"
]
[profile.default.options.evaluate]
images = 4
set = [
    "evaluation.autoattack_steps=2", "evaluation.square_queries=2", "evaluation.curve_images=2"
]
[profile.default.options.sweep]
set = [
    "training.robust_epochs=1", "training.compression_epochs=1", "training.finish_epochs=1",
    "evaluation.speed=false", "evaluation.curve_images=2",
    "evaluation.autoattack_steps=2", "evaluation.square_queries=2"
]
"""
"""A profile by which what the README asks for takes seconds, and as few images as there are."""


def test_the_curl_creates_a_job(atmc, service_url, tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("no curl on this machine")
    save_digits(tmp_path / "digits.npz")
    train_classifier(tmp_path / "digits.npz", tmp_path / "digits.safetensors", epochs=1)
    command = block("README.md", "curl http")
    assert SERVER in command
    job = json.loads(run(command.replace(SERVER, service_url), tmp_path))
    assert job["state"] == "queued", job
    assert atmc("cancel", job["id"]).returncode == 0


@pytest.fixture
def lenet(tmp_path: Path) -> Path:
    """A folder with a LeNet, its checkpoint, and a few images of MNIST's size."""
    network = build("lenet", 10)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    torch.save({"state_dict": network.state_dict()}, tmp_path / "epoch=9.ckpt")
    images = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
    labels = np.arange(40) % 10
    np.savez(tmp_path / "mnist.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    (tmp_path / "atmc.toml").write_text(SHORT)
    return tmp_path


@pytest.mark.slow
def test_the_command_line_does_what_is_said(service_url, signing_key, lenet):
    """Each command in its order; JOB is what `atmc submit` made, OTHER what a sweep made."""
    variables = {"ATMC_SERVER": service_url, "ATMC_CONFIG": str(lenet / "atmc.toml")}
    variables |= {"BROWSER": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
    shutil.copy(signing_key.with_suffix(".pub"), lenet / "service.pub")
    names = {"URI": f"sqlite:///{lenet}/mlflow.db"}

    def said(command):
        return run(named(command, **names), lenet, **variables)

    lines = re.sub(r"\\\n", "", block("README.md", "atmc submit")).splitlines()
    for line in lines:
        for command in re.split(r"; ", line.partition(" #")[0]):
            (words,) = commands(command)
            if "-o" in words and "convert" in words:
                (lenet / "model.safetensors").unlink()
            output = said(command)
            if words[1] == "submit":
                names["JOB"] = output.partition(":")[0]
            if "--densities" in words:
                sweep, *_ = json.loads(said("atmc sweeps --json"))
                names["SWEEP"] = sweep["id"]
                shown = json.loads(said("atmc sweeps show SWEEP --json"))
                names["OTHER"] = shown["trials"][0]["job_id"]
    assert (lenet / "smaller" / "model.atmc").exists()
    assert (lenet / "repository" / "README.md").exists()
    assert (lenet / "model.safetensors").exists()


@pytest.mark.slow
def test_the_client_does_the_same(service_url, lenet, monkeypatch):
    monkeypatch.chdir(lenet)
    code = block("README.md", "from atmc_client import Client")
    assert SERVER in code
    found = {}
    exec(code.replace(SERVER, service_url), found)
    assert (lenet / "smaller" / "model.atmc").exists()
    assert found["sweep"]["state"] == "succeeded"
    assert found["best"]["file_bytes"] > 0


def test_every_link_leads_somewhere():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
