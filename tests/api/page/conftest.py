"""The page in a real browser, on a real service. What it complains of fails the test."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from tests.api.conftest import Service, running, settings_in, wait_until
from tests.browser import chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for a module's tests: while it is open no other test can run an event loop."""
    with chromium() as launched:
        yield launched


@dataclass
class Visit:
    """An open page, what it asked other hosts for and what it complained of."""

    page: Page
    base: str
    complaints: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def go(self, route: str) -> Page:
        """Open a view by its address."""
        self.page.goto(f"{self.base}/#/{route}")
        return self.page

    def sees(self, text: str) -> None:
        """Wait until the text stands there."""
        self.page.get_by_text(text).first.wait_for(timeout=15_000)

    def until(self, true: str) -> None:
        """Wait until an expression holds; the page's policy forbids Playwright's own waiting."""
        wait_until(lambda: self.page.evaluate(true), timeout_s=20)

    def width_left_over(self) -> int:
        """By how many pixels the page is wider than its window."""
        measure = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return int(self.page.evaluate(measure))

    def serious(self) -> list[str]:
        """What axe finds serious or critical, each with where it is."""
        found = Axe().run(self.page).response["violations"]
        return [
            f"{rule['id']}: {[node['target'] for node in rule['nodes']][:3]}"
            for rule in found
            if rule["impact"] in ("serious", "critical")
        ]


Visiting = Callable[..., Visit]


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visiting]:
    """Opens the page of a service; at the end nothing was complained of, nobody else asked."""
    visits: list[tuple[Visit, tuple[str, ...]]] = []

    def open_(
        service: Service,
        *,
        width: int = 1200,
        scheme: str = "light",
        allowed: tuple[str, ...] = (),
    ) -> Visit:
        base = str(service.http.base_url).rstrip("/")
        size = {"width": width, "height": 900}
        context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
        context.set_default_timeout(15_000)
        made = Visit(context.new_page(), base)
        made.page.on("console", lambda said: _note(made.complaints, said.type, said.text))
        made.page.on("pageerror", lambda error: made.complaints.append(str(error)))
        made.page.on("request", lambda asked: _note_foreign(made, asked.url))
        visits.append((made, allowed))
        return made

    yield open_
    for made, allowed in visits:
        made.page.context.close()
        unexpected = [text for text in made.complaints if not any(part in text for part in allowed)]
        assert (unexpected, made.foreign) == ([], [])


def _note(complaints: list[str], kind: str, text: str) -> None:
    # A browser notes every 503, which a service under load may give; the page asks again.
    if kind in ("error", "warning") and "503 (Service Unavailable)" not in text:
        complaints.append(text)


def _note_foreign(made: Visit, url: str) -> None:
    if not url.startswith((f"{made.base}/", "blob:", "data:", "about:")):
        made.foreign.append(url)


@pytest.fixture
def local(tmp_path: Path, template: Path, broker: str) -> Iterator[Service]:
    """A running API of its own for the test, on SQLite and a folder."""
    yield from running(settings_in(tmp_path / "data", template, broker))
