"""Requests go on in their callers' traces, jobs keep theirs; off, nothing is imported."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pytest

from jobstore import traces
from jobstore.settings import Settings
from tests.api import files
from tests.api.conftest import Service, running, wait_until
from tests.api.processes import is_up, log_of, serving
from tests.collector import Collector, collecting, collector, variables  # noqa: F401

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SENT = {"traceparent": f"00-{TRACE_ID}-00f067aa0ba902b7-01", "tracestate": "vendor=1"}
STOPPING_S = 10.0


@pytest.fixture
def traced(collector: Collector, settings: Settings) -> Iterator[Service]:  # noqa: F811
    """A running API whose spans the collector gets."""
    yield from running(settings)


def test_a_request_goes_on_in_its_caller_s_trace_and_so_does_its_job(
    traced: Service,
    collector: Collector,  # noqa: F811
) -> None:
    ids = {
        "model_id": traced.send_model().json()["id"],
        "dataset_id": traced.send_dataset().json()["id"],
    }
    job = traced.http.post("/jobs", json=ids | files.SPEC, headers=SENT).json()
    assert job["trace_id"] == TRACE_ID
    assert traced.http.get(job["links"]["self"]).json()["trace_id"] == TRACE_ID
    (listed,) = traced.http.get("/jobs").json()["data"]
    assert listed["trace_id"] == TRACE_ID
    (event,) = traced.http.get(job["links"]["events"]).json()["data"]
    assert event["trace_id"] == TRACE_ID
    traced.http.post(job["links"]["cancel"])
    stream = traced.http.get(job["links"]["events"], headers={"Accept": "text/event-stream"})
    sent = [json.loads(line[6:]) for line in stream.text.splitlines() if line.startswith("data: ")]
    assert [event["trace_id"] for event in sent] == [TRACE_ID, TRACE_ID]

    created, read = collector.named("POST /jobs", "GET /jobs/{job_id}")
    assert (created.trace_id, created.parent_id) == (TRACE_ID, "00f067aa0ba902b7")
    assert created.kind == "server"
    assert (
        created.attributes.items()
        >= {
            "http.request.method": "POST",
            "http.route": "/jobs",
            "http.response.status_code": 202,
            "atmc.job.id": job["id"],
        }.items()
    )
    # Other requests are traces of their own.
    assert read.trace_id != TRACE_ID
    assert read.parent_id == ""
    assert read.attributes["atmc.job.id"] == job["id"]


NONE_AT_ALL = [
    "",
    "x",
    f"00-{'0' * 32}-00f067aa0ba902b7-01",
    f"00-{TRACE_ID}-{'0' * 16}-01",
    f"ff-{TRACE_ID}-00f067aa0ba902b7-01",
    f"00-{TRACE_ID}'; DROP TABLE jobs-00f067aa0ba902b7-01",
]


def test_a_header_that_is_none_begins_a_new_trace(
    traced: Service,
    collector: Collector,  # noqa: F811
) -> None:
    for header in NONE_AT_ALL:
        assert traced.http.get("/jobs", headers={"traceparent": header}).status_code == 200
    traces.shut_down()
    assert [span.parent_id for span in collector.spans] == [""] * len(NONE_AT_ALL)
    assert len({span.trace_id for span in collector.spans} - {TRACE_ID}) == len(NONE_AT_ALL)


def test_an_unsampled_trace_is_kept_and_not_told(
    traced: Service,
    collector: Collector,  # noqa: F811
) -> None:
    ids = {
        "model_id": traced.send_model().json()["id"],
        "dataset_id": traced.send_dataset().json()["id"],
    }
    unsampled = {"traceparent": f"00-{TRACE_ID}-00f067aa0ba902b7-00"}
    job = traced.http.post("/jobs", json=ids | files.SPEC, headers=unsampled).json()
    assert job["trace_id"] == TRACE_ID
    traced.http.get("/jobs")
    collector.named("GET /jobs", "POST /models")
    assert collector.of(TRACE_ID) == []


def test_a_refusal_has_its_code_and_nothing_that_its_caller_chose(
    traced: Service,
    collector: Collector,  # noqa: F811
) -> None:
    headers = {"User-Agent": "in-an-agent", "Cookie": "in-a-cookie"}
    traced.http.get("/in-a-path?x=in-the-query", headers=headers)
    traced.http.request("PROPFIND", "/in-a-path", headers=headers)
    traced.http.post("/jobs", json={"secret": "in-the-body"}, headers=headers)
    traced.http.get("/jobs/job_in-a-path", headers=headers)
    traced.http.get("/models/x", headers={"Authorization": "Bearer in-a-header"})
    nowhere, other, refused, missing, keyless = collector.named(
        "GET", "HTTP", "POST /jobs", "GET /jobs/{job_id}", "GET /models/{model_id}"
    )
    assert keyless.attributes["atmc.problem.code"] == "key_invalid"
    assert nowhere.attributes["atmc.problem.code"] == "not_found"
    assert other.attributes["http.request.method"] == "_OTHER"
    assert refused.attributes["http.response.status_code"] == 422
    assert refused.attributes["atmc.problem.code"] == "missing_field"
    assert missing.attributes["atmc.problem.code"] == "not_found"
    # What a caller did wrong is no error of the service's.
    assert not [span for span in collector.spans if span.failed]
    assert "in-a" not in str(collector.spans).lower()
    assert "in-the" not in str(collector.spans)


def test_a_failure_of_the_service_s_is_marked_as_one(
    traced: Service,
    collector: Collector,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a bug with in-a-value")

    monkeypatch.setattr("api.jobs.routes.list_jobs", fail)
    assert traced.http.get("/jobs").status_code == 500
    (span,) = collector.named("GET /jobs")
    assert span.failed
    assert span.attributes["http.response.status_code"] == 500
    assert span.attributes["error.type"] == "RuntimeError"
    assert "in-a-value" not in str(span)


def test_the_line_of_a_request_has_the_trace_s_id(settings: Settings) -> None:
    with (
        collecting() as told,
        serving(settings, ATMC_LOG_FORMAT="json", **variables(told)) as (process, url),
    ):
        wait_until(lambda: is_up(url))
        httpx.get(f"{url}/jobs/job_0", headers=SENT)
        process.terminate()
        process.wait(60)
        # What was not sent yet is sent at the end.
        assert [span.name for span in told.of(TRACE_ID)] == ["GET /jobs/{job_id}"]
        assert told.spans[0].service == "atmc-api"
    (line,) = [line for line in log_of(settings).read_text().splitlines() if "job_0" in line]
    assert json.loads(line)["trace_id"] == TRACE_ID


def test_a_collector_that_never_answers_neither_delays_nor_breaks_anything(
    settings: Settings,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        asked = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "50"}
        with serving(settings, **asked) as (process, url), httpx.Client(base_url=url) as http:
            wait_until(lambda: is_up(url))
            # More than the exporter's queue holds, so that spans have to be thrown away.
            slowest = 0.0
            for _ in range(50):
                began = time.monotonic()
                assert http.get("/jobs").status_code == 200
                slowest = max(slowest, time.monotonic() - began)
            silent.settimeout(10)
            silent.accept()[0].close()
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            process.wait(STOPPING_S)
            assert slowest < 5
    assert "the last spans are lost" in log_of(settings).read_text()


IMPORTED = """
import os, sys
from api.app import create_app
from jobstore import traces
from jobstore.settings import Settings
import keeper.__main__
create_app(Settings())
somewhere = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
for asked in (
    {},
    {"OTEL_SERVICE_NAME": "x"},
    {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
    somewhere | {"OTEL_SDK_DISABLED": "true"},
    somewhere | {"OTEL_TRACES_EXPORTER": "none"},
):
    os.environ.update(asked)
    traces.configure("api")
    assert not traces.is_on(), asked
    for name in asked:
        del os.environ[name]
# FastAPI and redis import OpenTelemetry's interface by themselves; it does nothing alone.
parts = ("opentelemetry.sdk.trace", "opentelemetry.exporter", "jobstore.otel")
print([name for name in sys.modules if name.startswith(parts)])
"""


def test_off_nothing_of_it_is_imported(settings: Settings) -> None:
    environment = os.environ | {"ATMC_HOME": str(settings.home)}
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "not one of otlp, console, none"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "grpc is not spoken here, http/protobuf is",
        ),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_BSP_MAX_QUEUE_SIZE": "-1"}, "no traces: "),
    ],
)
def test_what_cannot_be_had_is_said_and_the_service_goes_on(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    variables: dict[str, str],
    said: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    traces.configure("api")
    assert not traces.is_on()
    assert said in caplog.text


def test_a_job_of_a_service_without_traces_has_none(service: Service) -> None:
    ids = {
        "model_id": service.send_model().json()["id"],
        "dataset_id": service.send_dataset().json()["id"],
    }
    job = service.http.post("/jobs", json=ids | files.SPEC, headers=SENT).json()
    assert job["trace_id"] is None
