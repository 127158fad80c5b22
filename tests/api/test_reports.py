"""The report: JSON for programs, a page for people."""

from html.parser import HTMLParser
from typing import Any

import pytest

from api.reports.accept import prefers_html
from tests.api.conftest import REPORT, Service, assert_problem

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


def test_a_program_gets_the_report_as_it_was_written(
    service: Service, finished: dict[str, Any]
) -> None:
    response = service.http.get(finished["links"]["report"])
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Vary"] == "Accept"
    assert response.json() == REPORT


class Text(HTMLParser):
    """Collects the words of a page and what it would load."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.loads: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [str(v) for name, v in attributes if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.words += data.split()


def test_a_browser_gets_a_page_with_the_headline_first(
    service: Service, finished: dict[str, Any]
) -> None:
    response = service.http.get(finished["links"]["report"], headers={"Accept": BROWSER})
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    page = Text()
    page.feed(response.text)
    text = " ".join(page.words)
    body = text[text.index("}") :]
    assert "20.0 times smaller, robust accuracy 84.00 % → 81.75 %" in body
    for row in (
        "Clean images 98.00 % 97.00 % \u22121.00",
        "FGSM 90.00 % 88.00 % \u22122.00",
        "PGD 85.00 % 83.00 % \u22122.00",
        "Non-zeros of U, V, C 100, 4,000, 900",
        "Compressed file 10,420 bytes",
        "Computing time 1 h 2 min 5 s",
        "target.density 0.1",
    ):
        assert row in body
    assert body.index("times smaller") < body.index("Clean images") < body.index("target.density")


def test_the_page_is_self_contained_and_escapes_what_users_wrote(
    service: Service, finished: dict[str, Any]
) -> None:
    response = service.http.get(finished["links"]["report"], headers={"Accept": BROWSER})
    page = Text()
    page.feed(response.text)
    assert page.loads == []
    assert not {"script", "b", "link", "img", "iframe"} & set(page.tags)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in response.text
    assert "&lt;b&gt;bold&lt;/b&gt;" in response.text
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]


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
    assert prefers_html(accept) is html
