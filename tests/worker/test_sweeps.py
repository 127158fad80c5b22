"""A sweep with a real keeper and a real worker: both are killed in the middle, and nothing is lost.

Here, because the fixtures that start both are.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from benchmarks.small_job import ARCHITECTURE, SPEC, uploads
from jobstore.settings import Settings
from tests.api.conftest import Service, running

TRAINING = {"robust_epochs": 1, "compression_epochs": 2, "finish_epochs": 1, "batch_size": 100}
BASE = {name: value for name, value in SPEC.items() if name != "target"} | {"training": TRAINING}


@pytest.fixture
def service(settings: Settings, broker: str) -> Iterator[Service]:
    """A running API on the servers of the test."""
    settings.broker_url = broker
    yield from running(settings)


@pytest.mark.slow
def test_a_sweep_outlives_keeper_and_worker(
    service: Service,
    start: Callable[..., Any],
    start_worker: Callable[[], Any],
    poll: Callable[..., Any],
) -> None:
    http = service.http
    keeper, worker = start("keeper"), start_worker()
    poll(lambda: http.get("/methods").json()["data"])
    model, dataset = uploads()
    sent = {"file": ("m.safetensors", model)}
    made = http.post("/models", files=sent, data={"architecture": ARCHITECTURE}).json()
    data = http.post("/datasets", files={"file": ("d.npz", dataset)}).json()
    body = {
        "model_id": made["id"],
        "dataset_id": data["id"],
        "spec": BASE,
        "grid": {"densities": [0.2, 0.1], "bits": [8, 4]},
    }
    sweep = http.post("/sweeps", json=body).json()

    def shown() -> dict[str, Any]:
        answer: dict[str, Any] = http.get(sweep["links"]["self"]).json()
        return answer

    poll(lambda: shown()["counts"]["running"])
    for process in (keeper, worker):
        process.kill()
        process.wait()
    keeper, worker = start("keeper"), start_worker()
    poll(lambda: shown()["counts"]["succeeded"])
    keeper.kill()
    keeper.wait()
    start("keeper")
    poll(lambda: shown()["state"] != "running")
    ended = shown()
    jobs = http.get("/jobs", params={"sweep_id": sweep["id"]}).json()["data"]
    told = http.get(sweep["links"]["events"]).json()["data"]
    assert ended["state"] == "succeeded", ended
    assert {trial["state"] for trial in ended["trials"]} == {"succeeded"}
    # One job a trial, and no other.
    assert len(jobs) == 4
    assert {job["id"] for job in jobs} == {trial["job_id"] for trial in ended["trials"]}
    made_of = {job["id"]: job for job in jobs}
    for trial in ended["trials"]:
        target = made_of[trial["job_id"]]["spec"]["target"]
        assert target == {
            path.removeprefix("target."): value for path, value in trial["point"].items()
        }
        start_from = made_of[trial["job_id"]]["start_from"]
        denser = trial["denser"]
        assert start_from == (None if denser is None else ended["trials"][denser]["job_id"])
    assert ended["best"] in ended["front"]
    figures = ended["trials"][ended["best"]]["headline"]
    robust = figures["intervals_after"]["robust"]
    assert robust["low"] <= robust["accuracy"] == figures["robust_accuracy_after"]
    assert [event["seq"] for event in told] == list(range(1, len(told) + 1))
    ends = [(event["index"], event["state"]) for event in told if event["type"] == "trial"]
    assert [ends.count((index, "succeeded")) for index in range(4)] == [1] * 4
