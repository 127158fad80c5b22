"""The list of jobs: found by name and method, and followed as a stream."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import httpx

from jobstore import leases
from jobstore.states import JobState
from tests.api import files
from tests.api.conftest import Service, assert_problem, claimed, wait_until

STREAM = {"Accept": "text/event-stream"}


@contextmanager
def following(service: Service, **headers: str) -> Iterator[Iterator[tuple[str, dict[str, Any]]]]:
    """Yields the id and the job of each event of the stream, as they come."""
    with service.http.stream("GET", "/jobs", headers=STREAM | headers) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        yield _events(response)


def _events(response: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    id = ""
    for line in response.iter_lines():
        if line.startswith("id: "):
            id = line[4:]
        elif line.startswith("data: "):
            yield id, json.loads(line[6:])


def test_a_stream_tells_each_job_as_it_comes_changes_and_ends(service: Service) -> None:
    with following(service) as events:
        id = service.send_job(name="followed").json()["id"]
        told = next(job for _, job in events if job["id"] == id)
        assert (told["state"], told["name"]) == ("queued", "followed")
        attempt = claimed(service)
        assert next(job for _, job in events)["state"] == "validating"
        with service.database.write() as session:
            error = leases.JobError("training_diverged", "The loss became infinite.")
            leases.finish(session, attempt, JobState.FAILED, error=error)
        moment, told = next(events)
        assert told == service.http.get(f"/jobs/{id}").json()
        assert told["state"] == "failed"
    service.http.post(f"/jobs/{id}/retry").raise_for_status()
    # Who comes back is told what has changed meanwhile.
    with following(service, **{"Last-Event-ID": moment}) as events:
        assert next(events)[1]["state"] == "queued"
    long_ago = (datetime.fromisoformat(moment) - timedelta(days=9)).isoformat()
    with following(service, **{"Last-Event-ID": long_ago}) as events:
        assert next(events)[1]["id"] == id
    refused = service.http.get("/jobs", headers=STREAM | {"Last-Event-ID": "yesterday"})
    assert_problem(refused, 422, "invalid_value", "Last-Event-ID")


def test_a_stream_of_jobs_ends_with_its_key(admin: Service) -> None:
    one, other = admin.new_tenant("one"), admin.new_tenant("other")
    other.send_job(name="not yours")
    with following(one) as events:
        one.send_job(name="mine")
        assert next(events)[1]["name"] == "mine"
        (key,) = [key for key in admin.http.get("/keys").json()["data"] if key["tenant"] == "one"]
        admin.http.delete(f"/keys/{key['id']}").raise_for_status()
        assert list(events) == []
    wait_until(lambda: admin.services.feed.open == 0)


def test_jobs_are_found_by_name_id_and_method(service: Service) -> None:
    names = ["LeNet at a tenth", "lenet_100%", "wide"]
    made = {name: service.send_job(name=name).json()["id"] for name in names}
    nap = service.send_job(files.SPEC | {"method": "nap"}).json()["id"]

    def found(**query: str) -> list[str]:
        page = service.http.get("/jobs", params=query)
        assert page.status_code == 200, page.text
        return [job["id"] for job in page.json()["data"]]

    assert found(q="lenet") == [made["lenet_100%"], made["LeNet at a tenth"]]
    assert found(q="_100%") == [made["lenet_100%"]]
    assert found(q="%") == [made["lenet_100%"]]
    assert found(q=made["wide"][-8:]) == [made["wide"]]
    assert found(method="nap") == [nap]
    assert found(q="wide", method="nap") == []
    first = service.http.get("/jobs", params={"q": "lenet", "limit": 1}).json()
    assert first["has_more"]
    assert found(q="lenet", cursor=first["next"]) == [made["LeNet at a tenth"]]
