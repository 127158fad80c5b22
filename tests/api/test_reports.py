"""The report: JSON for programs, a page for people."""

from typing import Any

import pytest

from api.accept import prefers
from jobstore.artifacts import get_artifact
from tests.api.conftest import PAGE, REPORT, Service, assert_problem

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


def test_a_program_gets_the_report_as_it_was_written(
    service: Service, finished: dict[str, Any]
) -> None:
    response = service.http.get(finished["links"]["report"])
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Vary"] == "Accept"
    assert response.json() == REPORT


def test_a_browser_gets_the_page_as_it_was_written(
    service: Service, finished: dict[str, Any]
) -> None:
    response = service.http.get(finished["links"]["report"], headers={"Accept": BROWSER})
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.headers["Vary"] == "Accept"
    assert response.content == PAGE


def test_a_browser_runs_and_loads_nothing_that_stands_in_the_page(
    service: Service, finished: dict[str, Any]
) -> None:
    response = service.http.get(finished["links"]["report"], headers={"Accept": BROWSER})
    policy = dict(
        part.strip().split(" ", 1)
        for part in response.headers["Content-Security-Policy"].split(";")
    )
    assert policy == {
        "default-src": "'none'",
        "style-src": "'unsafe-inline'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_a_browser_gets_the_figures_of_a_job_that_made_no_page(
    service: Service, finished: dict[str, Any]
) -> None:
    with service.database.write() as session:
        session.delete(get_artifact(session, finished["id"], "report.html"))
    response = service.http.get(finished["links"]["report"], headers={"Accept": BROWSER})
    assert response.headers["Content-Type"] == "application/json"
    assert response.json() == REPORT


def test_a_job_that_has_not_ended_has_no_report(service: Service) -> None:
    job = service.send_job().json()
    detail = assert_problem(service.http.get(job["links"]["report"]), 404, "not_found")
    assert "queued" in detail
    assert service.http.get(job["links"]["artifacts"]).json()["data"] == []


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        (BROWSER, True),
        ("text/html", True),
        ("text/*", True),
        ("*/*", False),
        ("application/json", False),
        ("application/json, text/html;q=0.9", False),
        ("text/html;q=0.5, application/json;q=0.4", True),
        ("text/html;q=nonsense", False),
        ("", False),
    ],
)
def test_the_form_follows_the_accept_header(accept: str, html: bool) -> None:
    assert prefers(accept, "text/html") is html
