"""The commands of the pages that people begin with are run as they stand there."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import ATMC

ROOT = Path(__file__).parents[2]


def blocks(page: str) -> str:
    return "\n".join(re.findall(r"```sh\n(.+?)```", (ROOT / "docs" / page).read_text(), re.S))


def run(script: str, folder: Path, url: str) -> str:
    environment = os.environ | {
        "ATMC_SERVER": url,
        "PATH": f"{ATMC.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    step = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(step, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_five_minutes_are_true(service_url: str, tmp_path: Path) -> None:
    said = run(blocks("quickstart.md"), tmp_path, service_url)
    assert "(quickstart): succeeded" in said
    assert (tmp_path / "smaller" / "model.atmc").stat().st_size < 15_000


@pytest.mark.slow
def test_what_one_chooses_by_is_true(service_url: str, tmp_path: Path) -> None:
    run(f"python -m examples.digits\n{blocks('choosing.md')}", tmp_path, service_url)
    assert (tmp_path / "chosen.json").exists()
