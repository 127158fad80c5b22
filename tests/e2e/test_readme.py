"""The README's commands are true."""

import json
import re
import shutil

import pytest

from examples.digits import save_digits, train_classifier
from tests.docs.blocks import ROOT, block, run

README = (ROOT / "README.md").read_text()
SERVER = "http://127.0.0.1:8000"


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
