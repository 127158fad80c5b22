"""A rolling deploy of the production column, under load: nothing is lost or runs twice."""

import signal
import threading
from dataclasses import replace

import httpx
import pytest
from sqlalchemy import select

from benchmarks.house import START_S, House, Part, house, wait_until
from benchmarks.small_job import ARCHITECTURE, SPEC, child_at_work, undisturbed, uploads
from jobstore import artifacts, events
from jobstore.states import FINAL, JobState
from jobstore.tables import Job
from launcher.ports import free_port
from tests.api.test_rolling import Load

JOBS = 6
SETTINGS = {
    "lease_s": 10,
    "heartbeat_s": 1,
    "sweep_s": 1,
    "threads": 1,
    "device": "cpu",
    "drain_s": 1,
    "finish_s": 20,
}


def replacement(made: House, name: str, number: int) -> Part:
    """Another process of the same part: an API has a port, a worker a name of its own."""
    old = made.parts[name]
    new = replace(old, process=None, log=old.log.with_suffix(f".{number}.log"))
    if name.startswith("api"):
        port = str(free_port("127.0.0.1"))
        new = replace(new, environment={**old.environment, "ATMC_PORT": port})
    elif name.startswith("worker"):
        new = replace(new, command=[*old.command[:-1], f"{name}-{number}@%h"])
    return new


def url_of(part: Part) -> str:
    return f"http://127.0.0.1:{part.environment['ATMC_PORT']}"


def at_work(part: Part) -> bool:
    assert part.process is not None
    return child_at_work(part.process.pid) is not None


@pytest.mark.slow
def test_a_rolling_deploy_loses_nothing_and_runs_nothing_twice() -> None:
    load, client = Load(), httpx.Client(timeout=60, trust_env=False)
    with house(2, fsync=False, settings=SETTINGS) as made, client:
        second = replacement(made, "api", 0)
        second.start()
        made.parts["api-2"] = second
        apis = [made.parts["api"], second]
        urls = [url_of(api) for api in apis]

        def look(count: int) -> bool:
            load.balancer.look(urls, client)
            return len(load.balancer.ready) == count

        wait_until(lambda: look(2), START_S, "two processes of the API")
        model, dataset = uploads()
        sent = {"files": {"file": ("m", model)}, "data": {"architecture": ARCHITECTURE}}
        body = SPEC | {"seed": 0}
        body["model_id"] = client.post(f"{urls[0]}/models", **sent).json()["id"]
        files = {"file": ("d.npz", dataset)}
        body["dataset_id"] = client.post(f"{urls[0]}/datasets", files=files).json()["id"]

        def create() -> None:
            with httpx.Client(timeout=30, trust_env=False) as http:
                for _ in range(JOBS):
                    answer = load.balancer.send(http, "POST", "/jobs", json=body)
                    if answer.status_code == 202:
                        load.accepted.append(answer.json()["id"])
                    else:
                        load.wrong.append(answer.text)
                    load.over.wait(2)

        callers = [threading.Thread(target=each) for each in (create, load.read)]
        for caller in callers:
            caller.start()

        for number, name in enumerate(("worker-1", "api", "keeper", "worker-2")):
            old, new = made.parts[name], replacement(made, name, number + 1)
            new.start()
            if name.startswith("api"):
                urls.append(url_of(new))
                wait_until(lambda: look(3), START_S, "a third process of the API")
            if name.startswith("worker"):
                wait_until(lambda part=old: at_work(part), START_S, f"{name} at work")  # type: ignore[misc]
            assert old.process is not None
            old.process.send_signal(signal.SIGTERM)
            if name.startswith("api"):
                wait_until(lambda: look(2), 10, "an API process that says it leaves")
                urls.remove(url_of(old))
            assert old.process.wait(60) in (0, -signal.SIGTERM)
            made.parts[name] = new

        database = made.database()

        def ended() -> bool:
            with database.read() as session:
                states = session.scalars(select(Job.state)).all()
            return len(states) == JOBS and set(states) <= FINAL

        wait_until(ended, 600, "the jobs' end")
        load.over.set()
        for caller in callers:
            caller.join()

        assert load.wrong == []
        assert load.reads > 10
        with database.read() as session:
            jobs = {job.id: job for job in session.scalars(select(Job))}
            results = {
                job_id: artifacts.get_artifact(session, job_id, "model.atmc").sha256
                for job_id in jobs
            }
            told = {job_id: events.list_events(session, job_id) for job_id in jobs}
        database.engine.dispose()
    assert set(jobs) == set(load.accepted)
    assert len(load.accepted) == JOBS
    for job_id, job in jobs.items():
        ends = [e for e in told[job_id] if e.type == "state" and e.data["state"] == "succeeded"]
        assert (job.state, job.failed_attempts, len(ends)) == (JobState.SUCCEEDED, 0, 1)
    # Each worker that went was at work, so its job had two attempts.
    assert sum(job.attempt - 1 for job in jobs.values()) >= 2
    assert set(results.values()) == {undisturbed(0)}
