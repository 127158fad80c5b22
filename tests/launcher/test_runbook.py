"""Every command of docs/operations.md is run, in its order, against the real servers."""

import os
import re
import subprocess
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import httpx
import pytest

from benchmarks.small_job import ARCHITECTURE, SPEC, uploads
from tests.docs.blocks import fenced
from tests.launcher.compose_stand_in import serve
from tests.launcher.containers import Containers, running_containers, wait_until

CHAPTERS = fenced("docs/operations.md")


class Shell:
    """Runs chapters as an operator would who pastes them."""

    def __init__(self, containers: Containers, variables: dict[str, str]) -> None:
        self.containers = containers
        path = f"{containers.tools}{os.pathsep}{os.environ['PATH']}"
        self.environment = os.environ | variables | {"PATH": path}
        self.run_headings: list[str] = []

    def run(self, heading: str) -> str:
        """What the chapter's commands print; each must succeed."""
        self.run_headings.append(heading)
        done = subprocess.run(
            ["sh", "-e", "-c", CHAPTERS[heading]],
            cwd=self.containers.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{heading}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def artifact(self, http: httpx.Client, job: str) -> str:
        """The digest of the job's artifact, as it is downloaded now."""
        download = http.get(f"/jobs/{job}/artifacts/model.atmc")
        return sha256(httpx.get(download.headers["Location"]).content).hexdigest()


@pytest.fixture
def shell() -> Iterator[Shell]:
    with running_containers() as containers, serve(containers) as variables:
        yield Shell(containers, variables)


def _submit(http: httpx.Client) -> str:
    model, dataset = uploads()
    files = {"file": ("m.safetensors", model)}
    ids = {
        "model_id": http.post("/models", files=files, data={"architecture": ARCHITECTURE}).json()[
            "id"
        ],
        "dataset_id": http.post("/datasets", files={"file": ("d.npz", dataset)}).json()["id"],
    }
    answer = http.post("/jobs", json=ids | SPEC)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def _state(http: httpx.Client, job: str) -> str:
    return str(http.get(f"/jobs/{job}", params={"wait": 5}).json()["state"])


@pytest.mark.slow
def test_the_runbook_s_commands_do_what_it_says(shell: Shell) -> None:
    containers = shell.containers
    told = shell.run("Start, and look")
    assert "worker-cpu" in told
    assert re.search(r"vm|-\d+-\w{8} +\| +0 \|", told)
    with containers.caller() as http:
        job = _submit(http)
        shell.run("Scale out")
        assert {"worker-cpu", "worker-cpu/2"} <= set(containers.processes)
        wait_until(lambda: _state(http, job) == "succeeded")
        digest = shell.artifact(http, job)

        shell.run("Drain a worker")
        assert "worker-cpu/2" not in containers.processes

        shell.run("Back up")
        after_backup = _submit(http)
        wait_until(lambda: _state(http, after_backup) == "succeeded")
        # As if the disks were gone.
        containers.stop("seaweedfs")
        data: Path = containers._folder("seaweedfs", "data")
        assert subprocess.run(["rm", "-r", *data.iterdir()], check=False).returncode == 0
        shell.run("Restore")
        assert _state(http, job) == "succeeded"
        assert shell.artifact(http, job) == digest
        assert http.get(f"/jobs/{after_backup}").status_code == 404

        shell.run("Upgrade")
        assert _state(http, job) == "succeeded"

        before = containers.secret("postgres")
        shell.run("Rotate secrets")
        assert containers.secret("postgres") != before
        assert shell.artifact(http, job) == digest
        again = _submit(http)
        wait_until(lambda: _state(http, again) == "succeeded")
    assert shell.run_headings == list(CHAPTERS)


def test_the_runbook_has_a_chapter_for_each_task() -> None:
    assert list(CHAPTERS) == [
        "Start, and look",
        "Scale out",
        "Drain a worker",
        "Back up",
        "Restore",
        "Upgrade",
        "Rotate secrets",
    ]
