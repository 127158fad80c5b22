"""One service for all tests of this folder, started and used through the `atmc` command alone."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.atmc_client.conftest import BECOMING, in_a_process, in_this_process
from tests.collector import Collector, collecting, variables

ATMC = Path(sys.executable).with_name("atmc")
START_S = 300.0

Atmc = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """The collector that the service tells its spans."""
    with collecting() as made:
        yield made


@pytest.fixture(scope="session")
def signing_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a key, made as docs/operations.md says; its public half is beside it, `.pub`."""
    path = tmp_path_factory.mktemp("keys") / "signing.pem"
    make = ["openssl", "genpkey", "-algorithm", "ed25519", "-out", path]
    show = ["openssl", "pkey", "-in", path, "-pubout", "-out", path.with_suffix(".pub")]
    for command in (make, show):
        subprocess.run(command, check=True, capture_output=True)
    return path


@pytest.fixture(scope="session")
def service_url(
    tmp_path_factory: pytest.TempPathFactory, collector: Collector, signing_key: Path
) -> Iterator[str]:
    """The URL of a service that `atmc serve` started."""
    folder = tmp_path_factory.mktemp("service")
    log = folder / "serve.log"
    command = [ATMC, "serve", "--port", "0", "--data-dir", folder]
    # Started from a folder with an `api` of its user's.
    (folder / "api.py").write_text("raise ImportError('not this one')")
    # One thread a job: tests share the machine, and idle threads that spin slow them all down.
    environment = os.environ | {"ATMC_THREADS": "1", "ATMC_WEBHOOK_NETWORKS": "127.0.0.0/8"}
    environment |= variables(collector) | {"ATMC_SIGNING_KEY_FILE": str(signing_key)}
    with log.open("wb") as output:
        service = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + START_S
        while not (folder / "service.json").exists():
            assert service.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield json.loads((folder / "service.json").read_text())["url"]
    finally:
        service.terminate()
        assert service.wait(timeout=45) == 0, log.read_text()


@pytest.fixture(scope="session")
def atmc(service_url: str) -> Atmc:
    """Runs an `atmc` command against the service: jobs are submitted by the installed one.

    The others do without the start of an interpreter, which costs more than the command.
    """

    def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
        command = ["--server", service_url, *map(str, arguments)]
        if arguments[0] == "submit":
            return subprocess.run([ATMC, *command], capture_output=True, text=True)
        how = in_a_process if arguments[0] in BECOMING else in_this_process
        return how(*command)

    return run
