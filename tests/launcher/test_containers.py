"""The commands, variables and secrets of docker-compose.yml, run by hand, are a service."""

import signal
from collections.abc import Iterator
from hashlib import sha256

import httpx
import pytest

from benchmarks.small_job import ARCHITECTURE, SPEC, uploads
from tests.launcher.containers import OURS, Containers, running_containers, wait_until


@pytest.fixture
def containers() -> Iterator[Containers]:
    with running_containers() as made:
        yield made


@pytest.mark.slow
def test_the_services_take_a_job_from_its_creation_to_its_download(containers: Containers) -> None:
    containers.start_well("postgres", "valkey", "seaweedfs", "migrate", *OURS)

    with containers.caller() as http:
        assert httpx.get(http.base_url.join("/jobs")).status_code == 401
        model, dataset = uploads()
        fields = {"architecture": ARCHITECTURE}
        files = {"file": ("m.safetensors", model)}
        ids = {"model_id": http.post("/models", files=files, data=fields).json()["id"]}
        ids["dataset_id"] = http.post("/datasets", files={"file": ("d.npz", dataset)}).json()["id"]
        job = http.post("/jobs", json=ids | SPEC | {"seed": 0}).json()
        itself = job["links"]["self"]
        wait_until(lambda: http.get(itself, params={"wait": 20}).json()["finished_at"])
        assert http.get(itself).json()["state"] == "succeeded", http.get(itself).json()
        download = http.get(f"{job['links']['artifacts']}/model.atmc")
        # The store's own address, signed.
        assert download.status_code in (302, 303, 307)
        artifact = httpx.get(download.headers["Location"]).content
        listed = {each["name"]: each for each in http.get(job["links"]["artifacts"]).json()["data"]}
        assert sha256(artifact).hexdigest() == listed["model.atmc"]["sha256"]
        assert len(artifact) == http.get(itself).json()["headline"]["file_bytes"]

    assert containers.stop("worker-cpu") == 0
    for name in ("api", "sweep"):
        # uvicorn ends by the signal itself.
        assert containers.stop(name) in (0, -signal.SIGTERM)
    assert not containers.is_healthy("api")


@pytest.mark.slow
def test_a_wrong_password_is_refused_by_every_server(containers: Containers) -> None:
    containers.start_well("postgres", "valkey", "migrate")
    containers.secret = lambda _: "wrong"  # type: ignore[method-assign]
    assert containers.start("migrate").wait(60) != 0
    containers.start("sweep")
    log = containers.folder / "sweep.log"
    wait_until(lambda: "password authentication failed" in log.read_text())
    assert not containers.is_healthy("sweep")
