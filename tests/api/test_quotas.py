"""Nobody takes more than their share: bytes, jobs that wait, requests; and the answer says so."""

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
import redis
from sqlalchemy import func, select

from jobstore.rates import RateCounter
from jobstore.settings import Settings
from jobstore.tables import Job
from launcher.broker import prepare_broker
from tests.api import files
from tests.api.conftest import Service, assert_problem, claimed, running, wait_until


def limited(admin: Service, **terms: int) -> Service:
    """The service as a new tenant with these terms sees it."""
    name = f"t{uuid4().hex[:12]}"
    tenant = admin.new_tenant(name)
    changed = admin.http.patch(f"/tenants/{name}", json=terms)
    assert changed.status_code == 200, changed.text
    assert changed.json()["terms"] | terms == changed.json()["terms"]
    return tenant


def test_jobs_that_wait_are_limited(admin: Service) -> None:
    red = limited(admin, max_queued_jobs=2)
    first, _ = red.send_job(), red.send_job()
    refused = red.send_job()
    assert_problem(refused, 429, "quota_exceeded")
    assert int(refused.headers["Retry-After"]) > 0
    assert refused.headers["RateLimit-Policy"].startswith('"queued-jobs";q=2, "requests";q=')
    assert refused.headers["RateLimit"].startswith('"queued-jobs";r=0, "requests";r=')
    # One that is at work does not wait any more, one that is cancelled neither.
    claimed(admin)
    assert red.send_job().status_code == 202
    assert red.send_job().status_code == 429
    waiting = red.http.get("/jobs", params={"state": "queued"}).json()["data"]
    red.http.post(waiting[0]["links"]["cancel"])
    third = red.send_job()
    assert third.status_code == 202
    # A retry queues a job like any other.
    retried = red.http.post(waiting[0]["links"]["retry"])
    assert_problem(retried, 429, "quota_exceeded")
    assert limited(admin, max_queued_jobs=2).send_job().status_code == 202
    assert first.status_code == 202


def test_what_is_announced_counts_before_it_has_come(admin: Service) -> None:
    red = limited(admin, max_stored_bytes=1000)

    def announce(size: int) -> httpx.Response:
        headers = {"Tus-Resumable": "1.0.0", "Upload-Length": str(size)}
        return red.http.post("/uploads", headers=headers)

    first = announce(600)
    assert first.status_code == 201
    assert_problem(announce(401), 429, "quota_exceeded")
    body = {"bytes": 401, "sha256": "a" * 64}
    assert_problem(red.http.post("/uploads/direct", json=body), 429, "quota_exceeded")
    assert announce(400).status_code == 201
    red.http.delete(first.headers["Location"])
    assert announce(600).status_code == 201


def test_an_upload_that_becomes_a_model_is_counted_once(admin: Service) -> None:
    model = files.safetensors_file()
    red = limited(admin, max_stored_bytes=len(model))
    headers = {
        "Tus-Resumable": "1.0.0",
        "Upload-Length": str(len(model)),
        "Content-Type": "application/offset+octet-stream",
    }
    url = red.http.post("/uploads", headers=headers, content=model).headers["Location"]
    other = files.safetensors_file(files.weights(num_classes=7))
    assert_problem(red.send_model(other), 429, "quota_exceeded")
    body = {"upload_id": url.rpartition("/")[2], "architecture": files.ARCHITECTURE}
    assert red.http.post("/models", json=body).status_code == 201
    assert len(admin.stored_files()) == 1
    assert red.http.post("/uploads", headers=headers, content=model).status_code == 429
    assert red.send_model(model).status_code == 201


def test_a_limit_holds_however_many_ask_at_once(admin: Service) -> None:
    red = limited(admin, max_queued_jobs=3)
    ids = {
        "model_id": red.send_model().json()["id"],
        "dataset_id": red.send_dataset().json()["id"],
    }
    with ThreadPoolExecutor(12) as pool:
        sent = pool.map(lambda _: red.http.post("/jobs", json=ids | files.SPEC), range(12))
    assert sorted(answer.status_code for answer in sent) == [202] * 3 + [429] * 9
    with admin.database.read() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 3


def test_a_refused_job_leaves_nothing_and_does_not_use_up_its_key(admin: Service) -> None:
    red = limited(admin, max_queued_jobs=1)
    assert red.send_whole_job().status_code == 202
    stored = admin.stored_files()
    other = files.safetensors_file(files.weights(num_classes=7))
    key = {"Idempotency-Key": "k"}
    assert_problem(red.send_whole_job(model=other, **key), 429, "quota_exceeded")
    assert admin.stored_files() == stored
    claimed(admin)
    assert red.send_whole_job(model=other, **key).status_code == 202


def test_stored_bytes_are_limited_and_each_is_counted_once(admin: Service) -> None:
    model = files.safetensors_file()
    red = limited(admin, max_stored_bytes=len(model) + 10)
    first = red.send_model(model)
    assert first.status_code == 201
    assert red.send_model(model).status_code == 201
    refused = red.send_dataset()
    assert_problem(refused, 429, "quota_exceeded")
    assert refused.headers["RateLimit"].startswith('"stored-bytes";r=10, ')
    assert int(refused.headers["Retry-After"]) > 0
    assert len(admin.stored_files()) == 1
    second = limited(admin, max_stored_bytes=len(model))
    assert second.send_model(model).status_code == 201


def test_deleting_makes_room(admin: Service) -> None:
    models = [files.safetensors_file(files.weights(num_classes=n)) for n in (7, 10)]
    red = limited(admin, max_stored_bytes=max(map(len, models)))
    made = red.send_model(models[0]).json()
    assert red.send_model(models[1]).status_code == 429
    assert red.http.delete(made["links"]["self"]).status_code == 204
    assert red.send_model(models[1]).status_code == 201


def test_requests_are_counted_by_all_processes_together(admin: Service) -> None:
    red = limited(admin, requests_per_minute=5)
    twin = Settings(**admin.settings.model_dump())
    for second in running(twin):
        doors = [red, second.keyed(red.http.headers["Authorization"].removeprefix("Bearer "))]
        answers = [doors[i % 2].http.get("/jobs") for i in range(5)]
        assert [answer.status_code for answer in answers] == [200] * 5
        left = [answer.headers["RateLimit"].partition(";t=")[0] for answer in answers]
        assert left == [f'"requests";r={n}' for n in (4, 3, 2, 1, 0)]
        assert answers[0].headers["RateLimit-Policy"] == '"requests";q=5;w=60'
        for door in doors:
            refused = door.http.get("/jobs")
            assert_problem(refused, 429, "rate_limited")
            assert 1 <= int(refused.headers["Retry-After"]) <= 60
            assert refused.headers["RateLimit"].startswith('"requests";r=0;t=')
    # Another tenant has requests of its own, and a probe none to lose.
    assert limited(admin, requests_per_minute=5).http.get("/jobs").status_code == 200
    assert "RateLimit" not in red.http.get("/healthz").headers


def test_the_headers_stand_on_every_answer_to_a_caller(admin: Service) -> None:
    red = limited(admin, requests_per_minute=100)
    job = red.send_job().json()
    for answer in (
        red.http.get("/jobs/job_0"),
        red.http.post("/jobs", json={}),
        red.http.head("/jobs"),
        red.http.get(job["links"]["events"]),
        red.http.post(job["links"]["cancel"]),
    ):
        assert answer.headers["RateLimit-Policy"] == '"requests";q=100;w=60', answer.text


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A broker that a test may end."""
    (tmp_path / "own").mkdir()
    server = prepare_broker(tmp_path / "own")
    process = subprocess.Popen(server.command, stdout=subprocess.DEVNULL)
    with redis.Redis.from_url(server.url) as client:
        wait_until(lambda: process.poll() is None and _ping(client))
    yield server.url, process
    process.kill()
    process.wait()


def _ping(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def test_a_window_ends_and_a_broker_that_is_away_holds_nobody_up(
    own_broker: tuple[str, subprocess.Popen[bytes]], caplog: pytest.LogCaptureFixture
) -> None:
    url, process = own_broker
    counter = RateCounter(url)
    assert [counter.count("red", 2).exceeded for _ in range(3)] == [False, False, True]
    with redis.Redis.from_url(url) as client:
        client.pexpire("atmc:requests:red", 20)
    wait_until(lambda: not counter.count("red", 2).exceeded)
    process.kill()
    process.wait()
    assert counter.count("red", 2) is None
    assert [counter.count("red", 2) for _ in range(100)] == [None] * 100
    assert len(caplog.records) == 1, "it was asked again at once"


@pytest.mark.parametrize(
    ("terms", "code", "param"),
    [
        ({"max_queued_jobs": -1}, "invalid_value", "max_queued_jobs"),
        ({"requests_per_minute": 0}, "invalid_value", "requests_per_minute"),
        ({"keep_events_s": "soon"}, "invalid_value", "keep_events_s"),
        ({"served_at": 0}, "unknown_field", "served_at"),
    ],
)
def test_terms_that_are_none_are_refused(
    admin: Service, terms: dict[str, object], code: str, param: str
) -> None:
    admin.new_tenant("red")
    assert_problem(admin.http.patch("/tenants/red", json=terms), 422, code, param)
    assert_problem(admin.http.patch("/tenants/nobody", json={}), 404, "not_found")


def test_a_tenants_terms_are_its_own_or_the_services(admin: Service) -> None:
    admin.new_tenant("red")
    own = {"keep_events_s": 60.0, "max_running_jobs": 2}
    assert admin.http.patch("/tenants/red", json=own).status_code == 200
    changed = admin.http.patch("/tenants/red", json={"max_running_jobs": None})
    settings = admin.settings
    names = changed.json()["terms"].keys()
    expected = {name: getattr(settings, name) for name in names} | {"keep_events_s": 60.0}
    assert changed.json()["terms"] == expected
    listed = {each["name"]: each["terms"] for each in admin.http.get("/tenants").json()["data"]}
    assert listed["red"] == expected
    assert listed["default"]["keep_events_s"] == settings.keep_events_s
