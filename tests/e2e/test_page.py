"""The page on the whole service: a model is dropped and watched, and what comes back is whole."""

import base64
import hashlib
import json
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from examples.digits import ARCHITECTURE, save_digits, train_classifier
from tests.browser import chromium

# A job may wait for a machine that others use, too.
JOB_MS = 180_000
# A job of seconds: what the form's further fields are set to.
SHORT = {
    "training": {"robust epochs": "1", "compression epochs": "1", "finish epochs": "1"},
    "evaluation": {"max images": "60", "pgd steps": "2", "smooth restarts": "1"},
}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    save_digits(folder / "digits.npz", train=200, test=80)
    train_classifier(folder / "digits.npz", folder / "digits.safetensors", epochs=8)
    return folder


@pytest.fixture(scope="module")
def page(service_url: str) -> Iterator[Page]:
    """The page; at the end nobody else was asked and nothing was complained of."""
    with chromium() as browser:
        opened = browser.new_page(viewport={"width": 1280, "height": 900}, accept_downloads=True)
        complaints: list[str] = []
        asked: list[str] = []
        opened.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.on("request", lambda request: asked.append(request.url))
        opened.goto(f"{service_url}/")
        yield opened
        own = (service_url, "blob:", "data:", "about:")
        # A browser notes every 503, which a service under load may give; the page asks again.
        assert [text for text in complaints if "503" not in text] == []
        assert [url for url in asked if not url.startswith(own)] == []


def new(page: Page, digits: Path, name: str) -> None:
    """Open the form and fill it in, up to what is to be made."""
    page.get_by_role("link", name="New job").first.click()
    drop(page, ".drop:has(#model)", digits / "digits.safetensors")
    page.locator("#dataset").set_input_files(digits / "digits.npz")
    expect(page.get_by_label("Architecture")).to_have_value(ARCHITECTURE)
    page.get_by_label("Epsilon", exact=True).fill("0.1")
    page.get_by_label("Name", exact=True).fill(name)
    for group, fields in SHORT.items():
        page.get_by_text(f"more of {group}").click()
        for label, value in fields.items():
            page.get_by_label(label, exact=True).fill(value)


def drop(page: Page, where: str, path: Path) -> None:
    """Drop a file there, as a hand does it from a window of files."""
    content = base64.b64encode(path.read_bytes()).decode()
    transfer = page.evaluate_handle(
        """([name, content]) => {
            const transfer = new DataTransfer();
            const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
            transfer.items.add(new File([bytes], name));
            return transfer;
        }""",
        [path.name, content],
    )
    for event in ("dragenter", "dragover", "drop"):
        page.dispatch_event(where, event, {"dataTransfer": transfer})


def digest_of(page: Page, button: Locator) -> str:
    """Download what the button gives, and hash it."""
    with page.expect_download() as saved:
        button.click()
    return hashlib.sha256(saved.value.path().read_bytes()).hexdigest()


def test_a_dropped_model_is_watched_to_its_end_and_comes_back_whole(
    page: Page, digits: Path, service_url: str, atmc: Callable
) -> None:
    new(page, digits, "from the page")
    page.get_by_role("button", name="Send the job").click()
    page.get_by_role("heading", name="from the page", level=1).wait_for(timeout=JOB_MS)
    job_id = page.url.rpartition("/")[2]
    page.locator(".title .state.succeeded").wait_for(timeout=JOB_MS)
    job = httpx.get(f"{service_url}/jobs/{job_id}", trust_env=False).json()
    shown = page.locator(".headline").inner_text()
    assert f"{100 * job['headline']['robust_accuracy_after']:.1f} %" in shown
    assert page.locator(".stages li").count() >= 6
    assert page.locator("svg[aria-label^='Loss']").count() == 1
    page.get_by_role("button", name="Show it here").click()
    report = page.frame_locator("iframe[title='Report of the job']")
    report.get_by_text("Robustness report").first.wait_for()
    links = httpx.get(f"{service_url}/jobs/{job_id}/artifacts", trust_env=False).json()["data"]
    (artifact,) = [file for file in links if file["name"] == "model.atmc"]
    button = page.get_by_role("button", name="Download model.atmc")
    assert digest_of(page, button) == artifact["sha256"]
    assert page.locator(f"[data-sha256='{artifact['sha256']}']").count() == 1
    repeats(page, atmc, digits)


def repeats(page: Page, atmc: Callable, digits: Path) -> None:
    """The command that the page shows makes the job again."""
    page.get_by_role("button", name="Command", exact=True).click()
    # The variable that names the server, then the command.
    command = page.locator(".repeat code").inner_text().replace("\\\n", " ")
    _, _, *words = shlex.split(command)
    words = [str(digits / word) if word.startswith("digits.") else word for word in words]
    done = atmc(*words, "--no-wait", "--json")
    assert done.returncode == 0, done.stderr
    repeated = json.loads(done.stdout)
    first = json.loads(atmc("show", page.url.rpartition("/")[2], "--json").stdout)
    assert repeated["spec"] == first["spec"]
    assert atmc("cancel", repeated["id"]).returncode == 0


@pytest.mark.slow
def test_a_sweep_draws_its_figure_and_gives_its_files(page: Page, digits: Path) -> None:
    new(page, digits, "four points")
    page.get_by_role("button", name="A grid of sizes").click()
    page.get_by_label("Densities", exact=True).fill("0.2 0.1")
    page.get_by_label("Bits", exact=True).fill("8 4")
    page.get_by_role("button", name="Start the sweep").click()
    page.get_by_role("heading", name="four points", level=1).wait_for(timeout=JOB_MS)
    points = page.locator(".figure circle.robust")
    deadline = time.monotonic() + 4 * JOB_MS / 1000
    while points.count() < 4:
        assert time.monotonic() < deadline, page.locator("main").inner_text()
        time.sleep(0.5)
    page.locator(".title .state.succeeded").wait_for(timeout=JOB_MS)
    page.locator(".figure .interval.robust").nth(3).wait_for(state="attached")
    points.first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Open the job").wait_for()
    digest = digest_of(page, page.get_by_role("button", name="Download model.atmc"))
    for kind, begins in (("PNG", b"\x89PNG"), ("SVG", b"<svg"), ("CSV", b"index,job_id")):
        with page.expect_download() as saved:
            page.get_by_role("button", name=kind, exact=True).click()
        assert saved.value.path().read_bytes().startswith(begins)
    page.get_by_role("link", name="Open the job").click()
    page.locator(f"[data-sha256='{digest}']").wait_for()
