"""A job's events as a stream: in order, resumed by id, kept alive, ended with the job."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from sqlalchemy import event, text

from api.jobs import streaming
from jobstore import leases
from jobstore.events import EventType, NewEvent
from jobstore.states import JobState
from tests.api.conftest import HEADLINE, Service, assert_problem, claimed, wait_until

SSE = {"Accept": "text/event-stream"}


def blocks(response: httpx.Response) -> Iterator[dict[str, str]]:
    """The fields of each block of a stream, as the standard splits it; comments under ""."""
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        if line == "":
            yield fields
            fields = {}
        else:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")


def followed(service: Service, url: str, **headers: str) -> list[dict[str, Any]]:
    """All events of a stream, to its end."""
    with service.http.stream("GET", url, headers=SSE | headers) as response:
        assert response.status_code == 200
        assert response.headers["Content-Type"].startswith("text/event-stream")
        found = [block for block in blocks(response) if "data" in block]
    events = [json.loads(block["data"]) for block in found]
    assert [int(block["id"]) for block in found] == [event["seq"] for event in events]
    return events


def metric(service: Service, attempt: leases.Attempt, **data: float) -> None:
    with service.database.write() as session:
        leases.report(session, attempt, [NewEvent(EventType.METRIC, {"stage": "x", **data})])


def succeed(service: Service, attempt: leases.Attempt) -> None:
    with service.database.write() as session:
        leases.finish(session, attempt, JobState.SUCCEEDED, headline=HEADLINE)


def test_a_stream_tells_what_the_list_tells_and_ends_with_the_job(service: Service) -> None:
    url = service.send_job().json()["links"]["events"]
    with ThreadPoolExecutor() as pool:
        stream = pool.submit(followed, service, url)
        wait_until(lambda: service.services.feed.open)
        attempt = claimed(service)
        for epoch in range(3):
            metric(service, attempt, epoch=epoch, loss=1 / (epoch + 1))
        succeed(service, attempt)
        told = stream.result(timeout=60)
    assert told == service.http.get(url).json()["data"]
    assert told[-1]["state"] == "succeeded"
    wait_until(lambda: not service.services.feed.open)


def test_a_stream_tells_nothing_more_once_its_key_is_revoked(
    admin: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "HEARTBEAT_S", 0.2)
    new = {"tenant": "red", "scopes": ["jobs:read", "jobs:write"]}
    kept, revoked = (admin.http.post("/keys", json=new).json() for _ in range(2))
    url = admin.keyed(kept["key"]).send_job().json()["links"]["events"]
    attempt = claimed(admin)
    with ThreadPoolExecutor() as pool:
        streams = [pool.submit(followed, admin.keyed(made["key"]), url) for made in (kept, revoked)]
        wait_until(lambda: admin.services.feed.open == 2)
        assert admin.http.delete(f"/keys/{revoked['id']}").status_code == 204
        metric(admin, attempt, number=1)
        assert {event["type"] for event in streams[1].result(timeout=60)} == {"state"}
        assert not streams[0].done()
        succeed(admin, attempt)
        assert streams[0].result(timeout=60)[-1]["state"] == "succeeded"


def test_a_stream_goes_on_after_the_last_event_that_came(service: Service) -> None:
    url = service.send_job().json()["links"]["events"]
    attempt = claimed(service)
    for number in range(250):  # Of which a stream reads some at a time.
        metric(service, attempt, number=number)
    succeed(service, attempt)
    whole = followed(service, url)
    assert [event["seq"] for event in whole] == list(range(1, 254))
    assert followed(service, url, **{"Last-Event-ID": "200"}) == whole[200:]
    assert followed(service, f"{url}?after=251") == whole[251:]
    # The header is the browser's own, and newer than the address it connected to at first.
    assert followed(service, f"{url}?after=3", **{"Last-Event-ID": "252"}) == whole[252:]


def test_who_knows_all_of_an_ended_job_is_told_not_to_come_again(service: Service) -> None:
    url = service.send_job().json()["links"]["events"]
    service.http.post(url.replace("events", "cancel"))
    last = followed(service, url)[-1]["seq"]
    response = service.http.get(url, headers=SSE | {"Last-Event-ID": str(last)})
    assert (response.status_code, response.content) == (204, b"")


def test_a_job_that_is_retried_is_followed_again(service: Service) -> None:
    job = service.send_job().json()
    service.http.post(job["links"]["cancel"])
    last = str(followed(service, job["links"]["events"])[-1]["seq"])
    service.http.post(job["links"]["retry"])
    succeed(service, claimed(service))
    told = followed(service, job["links"]["events"], **{"Last-Event-ID": last})
    assert [event["state"] for event in told] == ["queued", "validating", "succeeded"]


def test_a_stream_on_which_nothing_happens_stays_alive(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "HEARTBEAT_S", 0.05)
    url = service.send_job().json()["links"]["events"]
    with service.http.stream("GET", url, headers=SSE) as response:
        found = blocks(response)
        assert next(found) == {"retry": str(streaming.RETRY_MS)}
        assert "data" in next(found)
        assert [next(found) for _ in range(3)] == [{"": "still here"}] * 3
    # Whoever hangs up is forgotten.
    wait_until(lambda: not service.services.feed.open)


def test_many_streams_of_one_job_read_each_event_once(service: Service) -> None:
    url = service.send_job().json()["links"]["events"]
    reads: list[str] = []

    def record(*arguments: Any) -> None:
        if "FROM events" in arguments[2]:
            reads.append(arguments[2])

    with ThreadPoolExecutor(20) as pool:
        streams: list[Future[list[dict[str, Any]]]] = []
        # One after the other: a busy machine turns some away of twenty that come at once.
        for _ in range(20):
            streams.append(pool.submit(followed, service, url))
            wait_until(lambda: len(service.services.watcher._waiters) == len(streams))
        event.listen(service.database.engine, "before_cursor_execute", record)
        succeed(service, claimed(service))
        told = [stream.result(timeout=60) for stream in streams]
    assert told == [told[0]] * 20
    # One for each state, if the poller came between; not one for each stream.
    assert len(reads) <= 3


def test_a_stream_ends_when_the_database_fails(service: Service) -> None:
    url = service.send_job().json()["links"]["events"]
    with ThreadPoolExecutor() as pool:
        stream = pool.submit(followed, service, url)
        wait_until(lambda: service.services.watcher._waiters)
        with service.database.write() as session:
            session.execute(text("ALTER TABLE jobs RENAME TO elsewhere"))
        assert [event["state"] for event in stream.result(timeout=60)] == ["queued"]


def test_streams_end_when_the_process_does(service: Service) -> None:
    url = service.send_job().json()["links"]["events"]
    ended = threading.Event()
    with ThreadPoolExecutor() as pool:
        stream = pool.submit(followed, service, url)
        stream.add_done_callback(lambda _: ended.set())
        wait_until(lambda: service.services.watcher._waiters)
        service.services.watcher.release()
        assert ended.wait(5)


@pytest.mark.parametrize(
    ("query", "headers", "param"),
    [
        ("", {"Last-Event-ID": "x"}, "Last-Event-ID"),
        ("", {"Last-Event-ID": "-1"}, "Last-Event-ID"),
        ("?limit=5", {}, "limit"),
    ],
)
def test_a_stream_that_cannot_be_is_refused(
    shared: Service, query: str, headers: dict[str, str], param: str
) -> None:
    url = shared.send_job().json()["links"]["events"]
    response = shared.http.get(url + query, headers=SSE | headers)
    assert_problem(response, 422, "invalid_value", param)


def test_a_stream_of_no_job_is_not_found(shared: Service) -> None:
    assert_problem(shared.http.get("/jobs/job_0/events", headers=SSE), 404, "not_found")


def test_a_head_request_for_a_stream_ends_at_once(shared: Service) -> None:
    url = shared.send_job().json()["links"]["events"]
    for _ in range(2):  # On the same connection.
        response = shared.http.head(url, headers=SSE)
        assert response.headers["Content-Type"].startswith("text/event-stream")
    assert shared.services.feed.open == 0
