"""A job becomes a run and a version on MLflow's own server.

Its pins clash with ours, so it lives in an environment of its own, which is kept below the system's
temporary folder for the next time.
"""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import OUTSIDE
from tests.e2e.test_digits import SHORT, digits, submit
from tests.ports import free_ports

digits, submit = digits, submit

MLFLOW = "mlflow==3.17.2"
START_S = 180.0
NAME = "digits-small"
# What pip says where there is no index, or none that has it.
_NO_INDEX = r"No matching distribution|NewConnectionError|Max retries|Temporary failure|timed out"


@pytest.fixture(scope="module")
def python() -> Path:
    """The interpreter of an environment with MLflow's server."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = Path(tempfile.gettempdir()) / f"atmc-{MLFLOW.replace('==', '-')}-python{version}"
    python, installed = folder / "bin" / "python", folder / "installed"
    folder.mkdir(mode=0o700, exist_ok=True)
    assert folder.stat().st_uid == os.getuid(), f"{folder} is somebody else's"
    if not installed.exists():
        venv.create(folder, clear=True, with_pip=True)
        install = [python, "-m", "pip", "install", "--quiet", MLFLOW]
        environment = os.environ | OUTSIDE
        done = subprocess.run(install, cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode != 0 and re.search(_NO_INDEX, done.stderr):
            pytest.skip(f"pip finds no {MLFLOW} here: {done.stderr.splitlines()[-1]}")
        assert done.returncode == 0, done.stderr
        installed.touch()
    return python


@pytest.fixture(scope="module")
def mlflow_url(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with its runs in SQLite, which hands artifacts in and out itself."""
    folder = tmp_path_factory.mktemp("mlflow")
    (port,) = free_ports(1)
    command = [
        *(python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
        *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--workers", "1"),
        *("--artifacts-destination", str(folder / "artifacts")),
    ]
    url, log = f"http://127.0.0.1:{port}", folder / "log"
    # Its runner of jobs is nine processes that nothing here asks for.
    environment = os.environ | {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + START_S
        while not _is_up(url):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield url
    finally:
        # Its workers, too.
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).is_success
    except httpx.TransportError:
        return False


@pytest.mark.slow
def test_a_job_is_a_run_and_a_version_of_a_real_server(
    atmc: Any, submit: Any, mlflow_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    done = submit(*SHORT, "--json")
    assert done.returncode == 0, done.stderr
    job = json.loads(done.stdout)
    for _ in range(2):
        done = atmc("register", job["id"], "--mlflow", mlflow_url, "--name", NAME)
        assert (done.returncode, done.stdout) == (0, f"models:/{NAME}/1\n"), done.stderr
    assert atmc("download", job["id"], "-o", tmp_path).returncode == 0

    with httpx.Client(base_url=mlflow_url, trust_env=False) as http:

        def ask(path: str, /, **params: str) -> Any:
            answer = http.get(f"/api/2.0/{path}", params=params)
            assert answer.status_code == 200, answer.text
            return answer.json()

        found = ask("mlflow/model-versions/search", filter=f"name='{NAME}'")
        (version,) = found["model_versions"]
        tags = {each["key"]: each["value"] for each in version["tags"]}
        assert tags["atmc.job_id"] == job["id"]
        assert tags["atmc.method"] == "atmc"
        assert (version["status"], version["version"]) == ("READY", "1")

        run = ask("mlflow/runs/get", run_id=version["run_id"])["run"]
        assert run["info"]["status"] == "FINISHED"
        params = {each["key"]: each["value"] for each in run["data"]["params"]}
        assert (params["target.density"], params["threat.norm"]) == ("0.1", "linf")
        metrics = {each["key"]: each["value"] for each in run["data"]["metrics"]}
        for name in ("clean_accuracy_after", "pgd_accuracy_after", "file_bytes", "k"):
            assert metrics[name] == job["headline"][name], name

        listed = ask("mlflow/artifacts/list", run_id=version["run_id"], path="model")["files"]
        names = {Path(each["path"]).name for each in listed}
        assert {"model.onnx", "model.atmc", "report.json", "report.html"} <= names
        root = run["info"]["artifact_uri"]
        assert version["source"] == f"{root}/model"
        below = root.removeprefix("mlflow-artifacts:/")
        for name in names:
            content = http.get(f"/api/2.0/mlflow-artifacts/artifacts/{below}/model/{name}").content
            assert hashlib.sha256(content).digest() == _sha256(tmp_path / name), name


def _sha256(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()
