"""The README's commands are true."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from atmc_core.networks.architectures import build
from examples.digits import save_digits, train_classifier
from tests.docs.blocks import ROOT, block, commands, run

README = (ROOT / "README.md").read_text()
SERVER = "http://127.0.0.1:8000"
# What the commands name, what made the first such thing, and how its id begins.
NAMED = (("JOB", "submit", "job"), ("OTHER", "evaluate", "job"), ("SWEEP", "sweep", "sweep"))


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


def test_every_link_leads_somewhere():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.fixture
def mnist(tmp_path):
    """A folder with what the commands name: a few digits as large as MNIST's, and a LeNet."""
    save_digits(tmp_path / "digits.npz", train=60, test=20)
    with np.load(tmp_path / "digits.npz") as arrays:
        large = {
            name: np.pad(each.repeat(3, 1).repeat(3, 2), ((0, 0), (2, 2), (2, 2)))
            if name.startswith("x")
            else each
            for name, each in arrays.items()
        }
    np.savez(tmp_path / "mnist.npz", **large)
    state = build("lenet", 10).state_dict()
    save_file(state, tmp_path / "model.safetensors")
    torch.save({"epoch": 9, "state_dict": state}, tmp_path / "epoch=9.ckpt")
    return tmp_path


@pytest.mark.slow
def test_the_commands_do_what_they_say(mnist, service_url, signing_key):
    shutil.copy(signing_key.with_suffix(".pub"), mnist / "service.pub")
    ids, ended = {}, []
    for words in commands(block("README.md", "atmc submit")):
        line = " ".join(words)
        # Somebody's bucket and somebody's registry: test_sources.py and test_mlflow.py have those.
        if "s3://" in line or "--mlflow" in words:
            continue
        step = [ids.get(word, word) for word in words[1:]]
        done = subprocess.run(
            [sys.executable, "-m", "atmc_client", "--server", service_url, *step],
            cwd=mnist,
            env={**os.environ, "PYTHONPATH": str(ROOT), "BROWSER": "true", "no_proxy": "*"},
            capture_output=True,
            text=True,
        )
        if "cancel" in words:
            # It has ended long since.
            ended.append(step)
            assert (done.returncode, "already" in done.stderr) == (2, True), done.stderr
            continue
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        for name, what, kind in NAMED:
            if words[1] == what and name not in ids:
                ids[name] = re.search(rf"\b{kind}_\w+", done.stdout + done.stderr)[0]
    assert len(ended) == 2
    assert (mnist / "smaller" / "model.atmc").stat().st_size < 40_000
    assert (mnist / "repository" / "README.md").exists()


@pytest.mark.slow
def test_so_do_the_calls(mnist, service_url):
    text = block("README.md", "from atmc_client")
    assert SERVER in text
    script = f"{text}    print(best['file_bytes'])\n".replace(SERVER, service_url)
    (mnist / "calls.py").write_text(script)
    assert 0 < int(run("python calls.py", mnist)) < 200_000
    assert (mnist / "smaller" / "report.json").exists()
