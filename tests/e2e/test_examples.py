"""The examples do on a running service what they say."""

import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from examples.digits import ARCHITECTURE, save_digits, train_classifier

ROOT = Path(__file__).parents[2]
SHORT = {
    "method": "atmc",
    "target": {"density": 0.1, "bits": 4},
    "threat": {"norm": "linf", "epsilon": 0.1, "steps": 2},
    "training": {"robust_epochs": 1, "compression_epochs": 2, "finish_epochs": 1},
    "evaluation": {"attacks": ["fgsm"], "curve_images": 10, "curve_steps": 2},
}


@pytest.fixture
def curl(service_url, tmp_path):
    """Runs `examples/curl.sh` in a folder of its own, with these arguments."""
    if shutil.which("curl") is None:
        pytest.skip("no curl on this machine")
    save_digits(tmp_path / "digits.npz", train=300, test=100)
    train_classifier(tmp_path / "digits.npz", tmp_path / "digits.safetensors", epochs=2)

    def run(*arguments):
        environment = {"PATH": os.environ["PATH"], "ATMC_SERVER": service_url, "no_proxy": "*"}
        command = ["/bin/sh", ROOT / "examples/curl.sh", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    return run


def test_curl_alone_sends_follows_fetches_and_checks(curl, tmp_path):
    done = curl("digits.safetensors", ARCHITECTURE, "digits.npz", json.dumps(SHORT))
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^job_\w+: succeeded$", done.stdout, re.M)
    for name in ("model.atmc", "model.onnx", "report.json"):
        digest = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        assert f"{name}: {digest}" in done.stdout
    assert json.loads((tmp_path / "report.json").read_text())["headline"]["bits"] == 4
    assert not list(tmp_path.glob("*.part"))


def test_curl_alone_shows_a_refusal(curl):
    done = curl("digits.safetensors", "alexnet", "digits.npz")
    assert done.returncode == 1
    assert "unknown_architecture" in done.stderr
