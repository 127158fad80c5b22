"""Requests get through faults that pass, and say clearly what does not."""

import json
import socket
import struct
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

import httpx
import pytest

from api.problems import CODES
from atmc_client import (
    ApiError,
    Conflict,
    InvalidRequest,
    NotAuthorized,
    NotFound,
    ServerError,
    ServerUnreachable,
)
from atmc_client.sync.transport import Transport

Answer = Callable[[BaseHTTPRequestHandler], None]


def answer(status: int, body: object, kind: str = "application/json") -> Answer:
    def act(handler: BaseHTTPRequestHandler) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(status)
        handler.send_header("content-type", kind)
        handler.send_header("content-length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return act


def reset(handler: BaseHTTPRequestHandler) -> None:
    """Drop the connection instead of answering."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True


@pytest.mark.parametrize("status", [502, 503, 504, 429])
def test_a_read_is_repeated_while_the_server_is_away(scripted, status):
    scripted.script = [answer(status, {}), answer(status, {}), answer(200, {"id": "job_1"})]
    assert Transport(scripted.url).get("/jobs/job_1") == {"id": "job_1"}
    assert len(scripted.seen) == 3


def test_a_read_is_repeated_after_a_lost_connection(scripted):
    scripted.script = [reset, answer(200, [1])]
    assert Transport(scripted.url).get("/") == [1]


def test_a_repeated_post_carries_the_same_idempotency_key_and_the_whole_body(scripted):
    scripted.script = [reset, answer(503, {}), answer(200, {})]
    transport = Transport(scripted.url)
    transport.post("/jobs", lambda: {"content": b"all of it"})
    keys = [seen.headers["Idempotency-Key"] for seen in scripted.seen]
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert {seen.body for seen in scripted.seen} == {b"all of it"}
    transport.post("/jobs")
    assert scripted.seen[-1].headers["Idempotency-Key"] != keys[0]


def test_a_refusal_is_not_repeated_and_tells_status_code_param_and_detail(scripted):
    problem = {"status": 422, "code": "k_out_of_range", "param": "target.k", "detail": "too many"}
    scripted.script = [answer(422, problem, kind="application/problem+json")]
    with pytest.raises(ApiError) as caught:
        Transport(scripted.url).post("/jobs")
    error = caught.value
    assert (error.status, error.code, error.param) == (422, "k_out_of_range", "target.k")
    assert error.detail == "too many"
    assert str(error) == "k_out_of_range (target.k): too many"
    assert len(scripted.seen) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequest),
        (401, NotAuthorized),
        (403, NotAuthorized),
        (404, NotFound),
        (409, Conflict),
        (422, InvalidRequest),
        (500, ServerError),
        (507, ServerError),
        (410, ApiError),
    ],
)
def test_a_refusal_has_the_class_of_its_status(scripted, status, kind):
    scripted.script = [answer(status, {"code": "any", "detail": "said"}, kind="application/json")]
    with pytest.raises(ApiError) as caught:
        Transport(scripted.url).get("/jobs")
    assert type(caught.value) is kind


def test_every_code_of_the_service_has_a_class():
    for code, (status, _) in CODES.items():
        response = httpx.Response(status, json={"code": code, "detail": "said"})
        kind = type(ApiError.from_response(response))
        assert kind is not ApiError, (code, status)


def test_an_error_that_is_no_problem_document_keeps_its_text(scripted):
    scripted.script = [answer(404, b"<h1>no such page</h1>", kind="text/html")]
    with pytest.raises(ApiError) as caught:
        Transport(scripted.url).get("/jobs")
    assert (caught.value.status, caught.value.code) == (404, "http_error")
    assert "no such page" in caught.value.detail


def test_a_server_of_another_kind_is_named_as_such(scripted):
    scripted.script = [answer(200, b"<h1>hello</h1>", kind="text/html")]
    with pytest.raises(ApiError, match="is not a compression service"):
        Transport(scripted.url).get("/jobs")


def test_nobody_there_says_where_and_what_to_do(closed_port):
    url = f"http://127.0.0.1:{closed_port}"
    with pytest.raises(ServerUnreachable, match="atmc serve") as caught:
        Transport(url).get("/jobs")
    assert url in str(caught.value)
    assert "--server" in str(caught.value)
