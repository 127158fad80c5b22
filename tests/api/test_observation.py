"""What an operator sees: figures, and one line a request with its ids and nothing secret."""

import contextlib
import json
import os
import subprocess
import sys
from datetime import datetime
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobstore import leases
from jobstore.events import EventType, NewEvent
from jobstore.settings import Settings
from jobstore.states import JobState
from tests.api import files
from tests.api.conftest import HEADLINE, Service, claimed, wait_until
from tests.api.processes import is_up, log_of, serving


def samples(http: httpx.Client) -> dict[tuple[str, str], float]:
    """The figures by their name and the values of their labels."""
    answer = http.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    return {
        (sample.name, " ".join(v for _, v in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def stage(service: Service, attempt: leases.Attempt, name: str, status: str) -> None:
    with service.database.write() as session:
        event = NewEvent(EventType.STAGE, {"stage": name, "status": status})
        leases.report(session, attempt, [event])


def test_the_life_of_a_job_shows_in_the_figures(service: Service) -> None:
    before = samples(service.http)
    assert before["atmc_queue_depth", "atmc"] == before["atmc_queue_age_seconds", "atmc"] == 0
    assert before["atmc_leases_lost_total", ""] == 0
    job = service.send_job().json()
    waiting = samples(service.http)
    assert (waiting["atmc_queue_depth", "atmc"], waiting["atmc_jobs", "queued"]) == (1, 1)
    assert 0 < waiting["atmc_queue_age_seconds", "atmc"] < 60
    assert (waiting["atmc_uploads_total", "model"], waiting["atmc_uploads_total", "dataset"]) == (
        1,
        1,
    )
    assert waiting["atmc_uploaded_bytes_total", "model"] == len(files.safetensors_file())
    attempt = claimed(service)
    for name in ("validating", "compressing"):
        for status in ("started", "finished"):
            stage(service, attempt, name, status)
    with service.database.write() as session:
        leases.finish(session, attempt, JobState.SUCCEEDED, headline=HEADLINE)
    after = samples(service.http)
    assert (after["atmc_jobs", "succeeded"], after["atmc_queue_depth", "atmc"]) == (1, 0)
    assert after["atmc_job_seconds_count", "succeeded"] == 1
    assert after["atmc_job_seconds_bucket", "+Inf succeeded"] == 1
    assert after["atmc_job_seconds_bucket", "60 succeeded"] == 1
    shown = service.http.get(job["links"]["self"]).json()
    assert 0 < after["atmc_job_seconds_sum", "succeeded"] < 60
    finished, started = (datetime.fromisoformat(shown[f"{t}ed_at"]) for t in ("finish", "start"))
    assert finished > started
    for name in ("validating", "compressing"):
        assert after["atmc_stage_seconds_count", name] == 1
        assert 0 <= after["atmc_stage_seconds_sum", name] < 60


def test_a_lost_lease_is_counted_and_what_was_rolled_back_is_not(service: Service) -> None:
    service.send_job()
    with service.database.write() as session:
        leases.claim(session, "lost", lease_s=-1)
    with contextlib.suppress(RuntimeError), service.database.write() as session:
        leases.sweep(session)
        raise RuntimeError
    assert samples(service.http)["atmc_leases_lost_total", ""] == 0
    with service.database.write() as session:
        leases.sweep(session)
    assert samples(service.http)["atmc_leases_lost_total", ""] == 1


def test_requests_are_counted_by_route_not_by_path(service: Service) -> None:
    for number in range(3):
        service.http.get(f"/jobs/job_{number}")
    service.http.get("/nowhere")
    found = samples(service.http)
    assert found["atmc_http_requests_total", "GET /jobs/{job_id} 404"] == 3
    assert found["atmc_http_request_seconds_count", "GET /jobs/{job_id}"] == 3
    assert found["atmc_http_requests_total", "GET none 404"] == 1


def test_open_streams_are_counted(service: Service) -> None:
    url = service.send_job().json()["links"]["events"]
    with (
        service.http.stream("GET", url, headers={"Accept": "text/event-stream"}),
        httpx.Client(base_url=service.http.base_url) as another,
    ):
        assert samples(another)["atmc_event_streams", ""] == 1


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("abc-1.2_3", True), ("", False), ("a b", False), ("a" * 65, False), ("é", False)],
)
def test_a_request_has_an_id_its_caller_s_if_it_is_one(
    shared: Service, sent: str, kept: bool
) -> None:
    response = shared.http.get("/jobs/job_0", headers={"X-Request-Id": sent.encode("latin-1")})
    given = response.headers["X-Request-Id"]
    assert given == sent if kept else len(given) == 32


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_each_request_is_one_line_with_its_ids_and_no_secret(
    settings: Settings, log_format: str
) -> None:
    with (
        serving(settings, ATMC_LOG_FORMAT=log_format) as (process, url),
        httpx.Client(base_url=url, timeout=20) as http,
    ):
        wait_until(lambda: is_up(url))
        http.get(
            "/jobs/job_0?secret=in-the-query",
            headers={"X-Request-Id": "mine", "Authorization": "Bearer in-a-header"},
        )
        http.post("/jobs", json={"secret": "in-the-body"}, headers={"X-Request-Id": "forged x=y"})
        process.terminate()
        process.wait(60)
    written = log_of(settings).read_text()
    for secret in ("in-the-query", "in-a-header", "in-the-body", "forged"):
        assert secret not in written
    lines = [line for line in written.splitlines() if "request" in line and "job_0" in line]
    assert len(lines) == 1
    if log_format == "text":
        assert "INFO api.requests: request method=GET path=/jobs/job_0 status=" in lines[0]
        assert " job=job_0 ms=" in lines[0]
        assert " request=mine" in lines[0]
        return
    records: list[dict[str, Any]] = [json.loads(line) for line in written.splitlines()]
    (record,) = [record for record in records if record.get("job") == "job_0"]
    expected = {"level": "INFO", "message": "request", "method": "GET", "request": "mine"}
    assert record.items() >= expected.items()


def test_who_reads_the_log_cannot_be_fooled_by_a_line_break(settings: Settings) -> None:
    script = (
        "import logging; from jobstore.logs import configure_logs; configure_logs('text');"
        "logging.getLogger('x').info('a\\nb', extra={'job': 'c\\nd', 'note': 'e f'})"
    )
    written = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stderr
    assert written.endswith(' INFO x: a\\nb job="c\\nd" note="e f"\n')
    assert written.count("\n") == 1


def test_a_terminal_that_shows_the_log_is_told_nothing(settings: Settings) -> None:
    """Control characters, of C1 and of Unicode too, are spelled out; so are those of errors."""
    script = (
        "import logging; from jobstore.logs import configure_logs; configure_logs('text')\n"
        "bad = '\\x1b]0;t\\x07\\x9b2J\\x7f\\r\\u2028\\u202e'\n"
        "logging.getLogger('x').info(bad, extra={'job': bad})\n"
        "try: raise ValueError(bad + '\\n2026-01-01 INFO forged: a record')\n"
        "except ValueError: logging.getLogger('x').exception('failed')\n"
    )
    written = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        check=True,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
    ).stderr.decode()
    lines = written.split("\n")
    assert all(line.isprintable() for line in lines)
    assert "\\x1b]0;t\\x07\\x9b2J\\x7f\\r\\u2028\\u202e" in lines[0]
    assert "forged" in written
    assert not [line for line in lines if line.startswith("2026-01-01")]
