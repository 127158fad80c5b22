"""The steps of the examples for build servers are run as those servers run them."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from tests.e2e.conftest import ATMC
from tests.e2e.test_digits import digits  # noqa: F401

EXAMPLES = Path(__file__).parents[2] / "examples" / "ci"
SPEC = {
    "method": "atmc",
    "target": {"density": 0.1, "bits": 4},
    "threat": {"norm": "linf", "epsilon": 0.02, "steps": 1},
    "training": {"robust_epochs": 0, "compression_epochs": 1, "finish_epochs": 1},
    "evaluation": {"attacks": ["fgsm"], "curve_images": 10, "curve_steps": 1, "speed": False},
}


@pytest.fixture
def checkout(digits: Path, tmp_path: Path) -> Path:  # noqa: F811
    """What the repository of such a build holds."""
    shutil.copy(digits / "digits.npz", tmp_path / "data.npz")
    shutil.copy(digits / "digits.safetensors", tmp_path / "model.safetensors")
    (tmp_path / "spec.json").write_text(json.dumps(SPEC))
    return tmp_path


def run(script: str, checkout: Path, url: str, **variables: str) -> None:
    path = f"{ATMC.parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "ATMC_SERVER": url} | variables
    step = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    done = subprocess.run(step, cwd=checkout, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"


@pytest.mark.slow
def test_the_workflow_for_github_compresses_and_gates(checkout: Path, service_url: str) -> None:
    workflow = yaml.safe_load((EXAMPLES / "github-actions.yml").read_text())
    variables, summary = checkout / "variables", checkout / "summary.md"
    given = {"GITHUB_ENV": str(variables), "GITHUB_STEP_SUMMARY": str(summary), "GITHUB_SHA": "a1"}
    for step in workflow["jobs"]["compress"]["steps"]:
        if "run" in step and "ATMC_PACKAGE" not in step["run"]:
            kept = variables.read_text().splitlines() if variables.exists() else []
            run(
                step["run"],
                checkout,
                service_url,
                **given,
                **dict(each.split("=") for each in kept),
            )
    assert (checkout / "dist" / "model.atmc").stat().st_size > 100
    assert "### Robustness gate: passed" in summary.read_text()
    assert ElementTree.parse(checkout / "gate.xml").getroot()[0].get("tests") == "2"


@pytest.mark.slow
def test_the_job_for_gitlab_gates_a_network_as_it_is(checkout: Path, service_url: str) -> None:
    job = yaml.safe_load((EXAMPLES / "gitlab-ci.yml").read_text())["robustness"]
    run("\n".join(job["script"]), checkout, service_url)
    assert job["artifacts"]["reports"]["junit"] == "gate.xml"
    assert ElementTree.parse(checkout / "gate.xml").getroot()[0].get("failures") == "0"
