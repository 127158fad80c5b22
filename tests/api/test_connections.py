"""Connections that keep us waiting, and more requests than can be answered in time."""

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from starlette.types import Message, Receive, Scope, Send

from api import admission, connections, services
from api.connections import Connection
from tests.api import files
from tests.api.conftest import Service, assert_problem, running, settings_in, wait_until
from tests.api.processes import is_up

HALF = b"GET /jobs HTTP/1.1\r\nHost: localhost\r\nX-Half: "
WITH_BODY = (
    b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 60000\r\n\r\n{"
)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, template: Any, broker: str) -> Iterator[Service]:
    settings = settings_in(tmp_path_factory.mktemp("own") / "data", template, broker)
    yield from running(settings.model_copy(update={"api_threads": 8}))


def connect(service: Service, beginning: bytes = HALF) -> socket.socket:
    url = service.http.base_url
    made = socket.create_connection((url.host, url.port or 0), timeout=20)
    made.sendall(beginning)
    return made


def is_closed(connection: socket.socket, within_s: float = 20.0) -> bool:
    """Whether the other side closes it in time without an answer."""
    connection.settimeout(within_s)
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


@pytest.mark.parametrize("beginning", [b"", HALF, WITH_BODY], ids=["nothing", "headers", "body"])
def test_a_request_that_is_not_finished_is_dropped(
    own: Service, monkeypatch: pytest.MonkeyPatch, beginning: bytes
) -> None:
    monkeypatch.setattr(connections, "HEADER_S", 0.3)
    monkeypatch.setattr(connections, "BODY_S", 0.3)
    with connect(own, beginning) as silent:
        assert is_closed(silent)
    assert not Connection._without_headers
    assert not Connection._with_body


@pytest.mark.parametrize("beginning", [HALF, WITH_BODY], ids=["headers", "body"])
def test_so_is_one_that_drips(
    own: Service, monkeypatch: pytest.MonkeyPatch, beginning: bytes
) -> None:
    monkeypatch.setattr(connections, "HEADER_S", 0.5)
    monkeypatch.setattr(connections, "BODY_S", 0.5)
    began = time.monotonic()
    with connect(own, beginning) as slow, suppress(ConnectionError):
        while time.monotonic() - began < 20 and not is_closed(slow, 0.05):
            slow.sendall(b" ")
    assert time.monotonic() - began < 20


def test_a_body_that_takes_long_and_comes_is_read(
    own: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEADER_S", 0.2)
    monkeypatch.setattr(connections, "BODY_S", 0.2)

    def piecemeal() -> Iterator[bytes]:
        for _ in range(8):
            yield b" " * 2048
            time.sleep(0.1)

    headers = {"Content-Type": "application/json"}
    response = own.http.post("/jobs", content=piecemeal(), headers=headers)
    assert_problem(response, 400, "malformed_json")
    # And a long-poll is a complete request.
    job = own.send_job().json()["links"]["self"]
    assert own.http.get(job, params={"wait": 1}).status_code == 200


def test_an_address_has_so_many_unfinished_requests_and_everybody_else_is_answered(
    own: Service,
) -> None:
    with ExitStack() as stack:
        held = [stack.enter_context(connect(own)) for _ in range(3 * connections.MAX_UNFINISHED)]
        assert is_up(str(own.http.base_url))
        wait_until(
            lambda: sum(is_closed(each, 0.001) for each in held) >= 2 * connections.MAX_UNFINISHED
        )
        # The last ones, which may be somebody's who has only begun, are kept.
        assert not is_closed(held[-1], 0.01)
        assert sum(map(len, Connection._without_headers.values())) <= connections.MAX_UNFINISHED
    wait_until(lambda: not Connection._without_headers)


def test_uploads_are_not_dropped_for_others(own: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_UNFINISHED", 3)
    with ExitStack() as stack:
        uploads = [stack.enter_context(connect(own, WITH_BODY)) for _ in range(3)]
        wait_until(lambda: sum(map(len, Connection._with_body.values())) == 3)
        with connect(own, b"") as refused:
            refused.settimeout(20)
            assert refused.recv(1000).startswith(b"HTTP/1.1 503 ")
        assert not any(is_closed(each, 0.01) for each in uploads)
    wait_until(lambda: not Connection._with_body)


def test_past_the_descriptors_the_oldest_that_waits_goes(
    own: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    own.http.close()
    http = httpx.Client(base_url=own.http.base_url, timeout=20)
    object.__setattr__(own, "http", http)
    monkeypatch.setattr(Connection, "max_connections", 10)
    with ExitStack() as stack:
        held = [stack.enter_context(connect(own)) for _ in range(30)]
        assert http.get("/healthz").is_success
        wait_until(lambda: sum(is_closed(each, 0.001) for each in held) >= 20)
        assert not is_closed(held[-1], 0.01)


@pytest.fixture
def stuck(own: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The threads of the service wait until the event."""
    free = threading.Event()
    identify = services.identify

    def slow(*arguments: Any) -> Any:
        free.wait(60)
        return identify(*arguments)

    monkeypatch.setattr(services, "identify", slow)
    yield free
    free.set()


def test_once_requests_wait_too_long_others_are_turned_away_at_once(
    own: Service, stuck: threading.Event
) -> None:
    url = str(own.http.base_url)

    def ask(_: int) -> httpx.Response:
        return httpx.get(f"{url}/jobs", timeout=60)

    with ThreadPoolExecutor(80) as pool:
        # As many as there are threads have their turn; the next one waits.
        began = time.monotonic()
        asked = [pool.submit(ask, number) for number in range(own.settings.api_threads + 10)]
        wait_until(lambda: httpx.get(f"{url}/jobs/job_0/x", timeout=60).status_code == 503)
        assert time.monotonic() - began > admission.MAX_WAIT_S
        began = time.monotonic()
        response = httpx.get(f"{url}/jobs", timeout=60)
        assert time.monotonic() - began < 0.5
        assert_problem(response, 503, "overloaded")
        assert response.headers["Retry-After"] == "1"
        assert response.headers["X-Request-Id"]
        assert is_up(url)
        stuck.set()
        statuses = [each.result().status_code for each in asked]
    # Those that were let in are answered, and so is the next.
    assert statuses.count(200) >= own.settings.api_threads
    assert statuses.count(200) + statuses.count(503) == len(statuses)
    assert own.http.get("/jobs").status_code == 200


def test_a_few_are_never_turned_away_however_long_they_wait(
    own: Service, stuck: threading.Event
) -> None:
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(own.http.get, "/jobs") for _ in range(4)]
        time.sleep(2 * admission.MAX_WAIT_S)
        assert own.http.get("/jobs/job_0/x").status_code == 404
        stuck.set()
        assert [each.result().status_code for each in asked] == [200] * 4


def test_who_waits_for_a_change_keeps_nobody_out() -> None:
    async def ask() -> int:
        inside, free = 0, asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal inside
            inside += 1
            await free.wait()

        async def receive() -> Message:
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            raise AssertionError(message)

        admission.limit_threads(2)
        turns = admission.Admission(app)
        scope = {"type": "http", "path": "/jobs/job_1"}
        asked = [asyncio.create_task(turns(scope, receive, send)) for _ in range(5)]
        await asyncio.sleep(0)
        # The look that the first one began has no turn meanwhile, as if a core was waited for.
        time.sleep(2 * admission.MAX_WAIT_S)
        asked.append(asyncio.create_task(turns(scope, receive, send)))
        await asyncio.sleep(0)
        free.set()
        await asyncio.gather(*asked)
        return inside

    assert asyncio.run(ask()) == 6


def test_who_breaks_off_is_one_line_and_no_failure(
    own: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    length = b"Content-Length: 900000\r\n\r\n"
    form = b"Content-Type: multipart/form-data; boundary=x\r\n" + length
    part = b'--x\r\nContent-Disposition: form-data; name="%s"; filename="f"\r\n\r\nPK'
    json = b"Content-Type: application/json\r\n" + length + b"{"
    beginnings = {
        b"/models": form + part % b"file",
        b"/datasets": form + part % b"file",
        b"/jobs": form + part % b"model",
        b"/webhooks": json,
    }
    for path, beginning in beginnings.items():
        caplog.clear()
        with connect(own, b"POST %s HTTP/1.1\r\nHost: localhost\r\n%s" % (path, beginning)):
            wait_until(lambda: Connection._with_body)
        wait_until(lambda: [r for r in caplog.records if r.name == "api.requests"])
        (line,) = [r for r in caplog.records if r.levelno >= logging.INFO and r.name != "httpx"]
        assert (line.getMessage(), vars(line)["status"]) == ("request", 499), path
        assert vars(line)["path"] == path.decode()
    assert not [name for name in own.stored_files() if "staged" in name]


@pytest.mark.parametrize(
    ("away", "path"),
    [
        ({"database_url": "postgresql://atmc@127.0.0.1:1/atmc"}, "/jobs"),
        ({"store_url": "s3://atmc", "store_endpoint": "http://127.0.0.1:1"}, "/models"),
    ],
    ids=["database", "store"],
)
def test_while_a_server_is_away_it_is_said_and_no_fault(
    tmp_path: Any,
    template: Any,
    broker: str,
    caplog: pytest.LogCaptureFixture,
    away: dict[str, str],
    path: str,
) -> None:
    settings = settings_in(tmp_path / "data", template, broker).model_copy(update=away)
    settings.store_access_key_id, settings.store_secret_access_key = "nobody", SecretStr("x" * 9)
    for service in running(settings):
        if path == "/jobs":
            response = service.http.get(path)
        else:
            response = service.send_model(files.torch_file())
        assert "readyz" in assert_problem(response, 503, "unavailable")
        assert int(response.headers["Retry-After"]) > 0
    assert not [record for record in caplog.records if record.exc_info]


def test_a_slash_too_many_leads_nowhere(own: Service) -> None:
    response = own.http.get("/jobs/", headers={"Host": "evil.example"}, follow_redirects=False)
    assert response.status_code in (403, 404)
    assert "Location" not in response.headers
    response = own.http.get("/jobs/", follow_redirects=False)
    assert_problem(response, 404, "not_found")


def test_no_page_is_shown_inside_another_s(own: Service) -> None:
    page = own.http.get("/docs")
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
