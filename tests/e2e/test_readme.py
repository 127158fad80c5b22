"""The README's commands are true."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from atmc_client.cli import cli
from examples.digits import save_digits, train_classifier

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SERVER = "http://127.0.0.1:8000"


def test_the_curl_creates_a_job(atmc, service_url, tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("no curl on this machine")
    save_digits(tmp_path / "digits.npz")
    train_classifier(tmp_path / "digits.npz", tmp_path / "digits.safetensors", epochs=1)
    (command,) = [
        block for block in re.findall(r"```sh\n(.+?)```", README, re.S) if "curl" in block
    ]
    assert SERVER in command
    command = command.replace(SERVER, service_url).replace("curl ", "curl -sS --noproxy '*' ")
    done = subprocess.run(
        ["/bin/sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    job = json.loads(done.stdout)
    assert job["state"] == "queued", job
    assert atmc("cancel", job["id"]).returncode == 0


def test_every_command_line_is_understood():
    (block,) = [block for block in re.findall(r"```sh\n(.+?)```", README, re.S) if "list;" in block]
    named = set(re.findall(r"\batmc (\w+)", block))
    assert named <= set(cli.commands)


def test_every_link_and_make_target_exists():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
    targets = set(re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"^ {4}make (\S+)", README, re.M)) <= targets
