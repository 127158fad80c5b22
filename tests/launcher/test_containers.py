"""The commands, variables and secrets of docker-compose.yml, run by hand, are a service."""

import os
import signal
import subprocess
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import httpx
import pytest

from benchmarks.small_job import ARCHITECTURE, SPEC, uploads
from jobstore.objects import ObjectStore
from jobstore.settings import Settings
from tests.launcher.containers import OURS, ROOT, Containers, running_containers, wait_until


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
    for name in ("api", "keeper"):
        # uvicorn ends by the signal itself.
        assert containers.stop(name) in (0, -signal.SIGTERM)
    assert not containers.is_healthy("api")


def test_the_store_writes_to_its_volume_and_tmp_alone(containers: Containers) -> None:
    within = containers.confined("seaweedfs")
    tried = subprocess.run([*within, "touch", ROOT / "written"], capture_output=True, check=False)
    if b"Read-only file system" not in tried.stderr:
        pytest.skip(f"no mounts of one's own here: {tried.stderr.decode()}")
    # As its image has it.
    os.chown(containers.folder / "services/seaweedfs/data", 1000, 1000)

    store = containers.start("seaweedfs", within=within)
    endpoint = f"http://{containers.words['seaweedfs:8333']}"
    wait_until(lambda: store.poll() is not None or _answers(f"{endpoint}/healthz"))
    settings = Settings(
        store_url="s3://atmc",
        store_endpoint=endpoint,
        store_access_key_id="atmc",
        store_secret_access_key=containers.secret("store"),
    )
    kept = ObjectStore.from_settings(settings)
    kept.put_file("kept", Path(__file__))
    kept.get_file("kept", containers.folder / "fetched")
    assert (containers.folder / "fetched").read_bytes() == Path(__file__).read_bytes()
    assert containers.stop("seaweedfs") == 0


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


@pytest.mark.slow
def test_a_wrong_password_is_refused_by_every_server(containers: Containers) -> None:
    containers.start_well("postgres", "valkey", "migrate")
    containers.secret = lambda _: "wrong" * 8  # type: ignore[method-assign]
    assert containers.start("migrate").wait(60) != 0
    containers.start("keeper")
    log = containers.folder / "keeper.log"
    wait_until(lambda: "password authentication failed" in log.read_text())
    assert not containers.is_healthy("keeper")
