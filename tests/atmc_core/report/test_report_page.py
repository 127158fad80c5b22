"""The report's page in a real browser: headless Chromium, without a network.

On a machine without Chromium these tests are skipped, and say that it has to be installed.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from tests.browser import PHONE_WIDTH, chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as launched:
        yield launched


@pytest.fixture(params=["compressed", "evaluated"])
def report_page(request: pytest.FixtureRequest) -> Path:
    found = request.getfixturevalue(request.param)
    folder: Path = found if request.param == "compressed" else found[0]
    return folder / "results" / "report.html"


@pytest.fixture
def opened(browser: Browser, report_page: Path) -> Iterator[tuple[Page, dict[str, list[str]]]]:
    """The page on a desk, and what it asked for and complained of."""
    context = browser.new_context(viewport={"width": 1200, "height": 900}, offline=True)
    page = context.new_page()
    seen: dict[str, list[str]] = {"requests": [], "complaints": []}
    page.on("request", lambda request: seen["requests"].append(request.url))
    page.on("console", lambda message: seen["complaints"].append(message.text))
    page.on("pageerror", lambda error: seen["complaints"].append(str(error)))
    page.goto(report_page.as_uri())
    yield page, seen
    context.close()


def test_it_opens_offline_and_asks_for_nothing(
    opened: tuple[Page, dict[str, list[str]]], report_page: Path
) -> None:
    page, seen = opened
    page.wait_for_load_state("networkidle")
    elsewhere = [url for url in seen["requests"] if not url.startswith("data:image/png;base64,")]
    assert elsewhere == [report_page.as_uri()]
    assert seen["complaints"] == []
    broken = "Array.from(document.images).filter(image => !image.naturalWidth).length"
    assert page.evaluate(broken) == 0
    assert page.evaluate("document.images.length") > 8


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_passes_axe_with_everything_unfolded(
    opened: tuple[Page, dict[str, list[str]]], scheme: Any
) -> None:
    page, _ = opened
    page.emulate_media(color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    found = Axe().run(page).response["violations"]
    told = [(each["id"], [node["html"][:200] for node in each["nodes"]][:3]) for each in found]
    assert told == []


def test_headings_descend_one_level_at_a_time_and_the_verdict_comes_first(
    opened: tuple[Page, dict[str, list[str]]],
) -> None:
    page, _ = opened
    levels = page.evaluate(
        "Array.from(document.querySelectorAll('h1,h2,h3,h4')).map(h => Number(h.tagName[1]))"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    above = "document.getElementById('verdict').getBoundingClientRect().bottom"
    assert page.evaluate(above) < 900


@pytest.mark.parametrize("width", [PHONE_WIDTH, 1200])
def test_nothing_has_to_be_scrolled_sideways(
    opened: tuple[Page, dict[str, list[str]]], width: int
) -> None:
    page, _ = opened
    page.set_viewport_size({"width": width, "height": 800})
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_keyboard_reaches_the_skip_link_then_every_fold_and_opens_them(
    opened: tuple[Page, dict[str, list[str]]],
) -> None:
    page, _ = opened
    page.keyboard.press("Tab")
    skip = page.evaluate("document.activeElement.getBoundingClientRect().left")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert skip >= 0
    folds = page.locator("summary").count()
    reached = 0
    for _ in range(4 * folds + 10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.tagName") == "SUMMARY":
            page.keyboard.press("Enter")
            reached += 1
            if reached == folds:
                break
    assert page.locator("details[open]").count() == folds > 2


def test_print_holds_what_is_folded_away_on_screen(
    opened: tuple[Page, dict[str, list[str]]],
) -> None:
    page, _ = opened
    page.emulate_media(media="print")
    hidden = (
        "Array.from(document.querySelectorAll('details table, details ul, details dl'))"
        ".filter(part => !part.checkVisibility() || !part.getBoundingClientRect().height).length"
    )
    assert page.evaluate(hidden) == 0
    assert page.pdf(format="A4").startswith(b"%PDF")
