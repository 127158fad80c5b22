"""The client follows a job's events by the stream, and goes on where one broke off."""

import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx
import pytest

from atmc_client import ApiError, Client
from tests.api import files
from tests.atmc_client.conftest import ScriptedServer


def send(
    handler: BaseHTTPRequestHandler,
    status: int,
    body: bytes,
    promised: int = 0,
    media_type: str = "text/event-stream",
) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", media_type)
    handler.send_header("Content-Length", str(promised or len(body)))
    handler.end_headers()
    handler.wfile.write(body)
    handler.close_connection = True


def test_events_are_followed_until_the_job_has_ended(api_url: str, tmp_path: Path) -> None:
    spec = {"architecture": files.ARCHITECTURE, **files.SPEC}
    parts = {
        "spec": (None, httpx.Request("POST", "/", json=spec).content),
        "model": ("m", files.safetensors_file()),
        "dataset": ("d", files.npz_file()),
    }
    job = httpx.post(f"{api_url}/jobs", files=parts, trust_env=False).json()
    cancel = threading.Timer(
        0.5, lambda: httpx.post(api_url + job["links"]["cancel"], trust_env=False)
    )
    cancel.start()
    with Client(api_url) as client:
        told = list(client.events(job["id"], follow=True))
        assert [event["state"] for event in told] == ["queued", "cancelled"]
        assert list(client.events(job["id"])) == told
        assert list(client.events(job["id"], after=told[-1]["seq"], follow=True)) == []
    cancel.join()


def test_a_stream_that_breaks_off_is_gone_on_with(scripted: ScriptedServer) -> None:
    scripted.script = [
        lambda handler: send(handler, 200, b'id: 1\ndata: {"seq": 1}\n\n', promised=500),
        lambda handler: send(handler, 200, b': still here\n\nid: 2\ndata: {"seq": 2}\n\n'),
        lambda handler: send(handler, 204, b""),
    ]
    with Client(scripted.url) as client:
        told = list(client.events("job_1", follow=True))
    assert told == [{"seq": 1}, {"seq": 2}]
    assert [seen.headers["Last-Event-ID"] for seen in scripted.seen] == ["0", "1", "2"]
    assert {seen.headers["Accept"] for seen in scripted.seen} == {"text/event-stream"}


def test_an_answer_that_is_no_stream_is_refused_with_its_address(scripted: ScriptedServer) -> None:
    scripted.script = [lambda handler: send(handler, 200, b"{}", media_type="text/html")]
    with Client(scripted.url) as client, pytest.raises(ApiError, match="no stream of events"):
        list(client.events("job_1", follow=True))
