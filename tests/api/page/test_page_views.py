"""The page's views in a browser: live, by key, by keyboard, at every width, for readers."""

import hashlib
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import insert, update

from jobstore import leases
from jobstore.events import EventType, NewEvent
from jobstore.states import JobState, SweepState
from jobstore.tables import DEFAULT_TENANT, Job, Sweep
from tests.api import files
from tests.api.conftest import (
    ADMIN_KEY,
    ARTIFACT,
    Service,
    claimed,
    finished_job,
    running,
    settings_in,
    wait_until,
)
from tests.api.page.conftest import Visiting
from tests.browser import PHONE_WIDTH

WIDE = 1920


def tell(service: Service, attempt: leases.Attempt, type: EventType, **data: Any) -> None:
    with service.database.write() as session:
        leases.report(session, attempt, [NewEvent(type, data)])


def test_the_list_follows_jobs_and_acts_on_them(local: Service, visit: Visiting) -> None:
    one = local.send_job(name="the first of them").json()
    seen = visit(local)
    page = seen.go("jobs")
    row = page.locator("[data-row]", has_text="the first of them")
    row.locator(".state.queued").wait_for()
    attempt = claimed(local)
    tell(local, attempt, EventType.STAGE, stage="robust_training", status="started")
    row.get_by_text("robust training").wait_for()
    tell(
        local,
        attempt,
        EventType.PROGRESS,
        stage="robust_training",
        epoch=3,
        epochs=9,
        progress=0.5,
        eta_s=120,
    )
    row.get_by_text("2 min left").wait_for()
    assert row.get_by_role("progressbar").get_attribute("aria-valuenow") == "50"
    local.send_job(name="one that came later")
    seen.sees("one that came later")
    assert "one that came later" in page.locator("[data-row='0']").inner_text()
    with local.database.write() as session:
        error = leases.JobError("training_diverged", "The loss became infinite.")
        leases.finish(session, attempt, JobState.FAILED, error=error)
    row.get_by_role("button", name="Retry").click()
    wait_until(lambda: local.http.get(one["links"]["self"]).json()["state"] == "queued")
    row.get_by_role("button", name="Cancel").click()
    row.get_by_role("button", name="Cancel it?").click()
    row.locator(".state.cancelled").wait_for()
    page.get_by_label("Search by name or id").fill("LATER")
    row.wait_for(state="detached")
    seen.sees("one that came later")
    page.get_by_label("Search by name or id").fill("")
    page.get_by_label("State", exact=True).select_option("cancelled")
    row.wait_for()
    seen.until("document.querySelectorAll('[data-row]').length === 1")


def test_a_finished_job_shows_figures_report_and_files(local: Service, visit: Visiting) -> None:
    done = finished_job(local)
    # The report of this job has a script in it, which its frame does not run.
    seen = visit(local, allowed=("Blocked script execution", "sandboxed"))
    page = seen.go(f"jobs/{done['id']}")
    seen.sees("81.8 %")
    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    page.get_by_role("button", name="Show it here").click()
    frame = page.frame_locator("iframe[title='Report of the job']")
    frame.get_by_text("à la carte").wait_for()
    assert page.evaluate("document.querySelector('iframe').sandbox.value") == "allow-same-origin"
    with page.expect_download() as saved:
        page.get_by_role("button", name="Download model.atmc").click()
    path = saved.value.path()
    assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(ARTIFACT).digest()
    shown = page.locator("[data-sha256]").all()
    digests = {each.get_attribute("data-sha256") for each in shown}
    assert hashlib.sha256(ARTIFACT).hexdigest() in digests
    page.get_by_role("button", name="curl").click()
    assert f"{seen.base}/jobs" in page.locator(".repeat code").inner_text()
    assert asked == []
    assert seen.serious() == []


def test_a_key_is_asked_for_once_and_goes_with_the_tab(
    tmp_path: Path, template: Path, broker: str, visit: Visiting
) -> None:
    settings = settings_in(tmp_path / "data", template, broker)
    settings.admin_key = SecretStr(ADMIN_KEY)
    for service in running(settings):
        team = service.keyed(ADMIN_KEY).new_tenant("vision")
        team.send_job(name="of the team")
        seen = visit(service, allowed=("401",))
        page = seen.go("jobs")
        page.get_by_label("Key").fill("atmc_wrong")
        page.get_by_role("button", name="Sign in").click()
        seen.sees("The key is unknown")
        assert seen.serious() == []
        key = team.http.headers["Authorization"].removeprefix("Bearer ")
        page.get_by_label("Key").fill(key)
        page.get_by_role("button", name="Sign in").click()
        seen.sees("of the team")
        page.reload()
        seen.sees("of the team")
        assert page.evaluate("[localStorage.length, document.cookie]")[1] == ""
        assert key not in page.evaluate("JSON.stringify(localStorage)")
        with service.database.write() as session:
            session.execute(update(Job).values(name="renamed"))
        page.get_by_role("button", name="Sign out").click()
        page.get_by_label("Key").wait_for()
        assert key not in page.evaluate("JSON.stringify(sessionStorage)")


@pytest.mark.slow
def test_five_thousand_jobs_are_drawn_where_they_are_seen(local: Service, visit: Visiting) -> None:
    first = local.send_job(name="the oldest").json()
    with local.database.write() as session:
        job = session.get_one(Job, first["id"])
        same = {name: getattr(job, name) for name in ("spec", "model_id", "dataset_id")}
        began = datetime.now(UTC) - timedelta(days=1)
        rows = [
            {
                "id": f"job_{0x0197F3A200000000_00000000_00000000 + n:032x}",
                "tenant_id": DEFAULT_TENANT,
                "name": f"number {n}",
                "state": JobState.QUEUED,
                "max_attempts": 3,
                "time_limit_s": 60,
                "queued_at": began,
                **same,
            }
            for n in range(5000)
        ]
        session.execute(insert(Job), rows)
        # Ended, since that many do not wait.
        session.execute(
            update(Job)
            .where(Job.id != first["id"])
            .values(state=JobState.CANCELLED, finished_at=began)
        )
    seen = visit(local)
    page = seen.go("jobs")
    page.locator("[data-row='0']").wait_for()
    took_ms = page.evaluate("performance.getEntriesByType('paint').at(-1).startTime")
    # Where nothing else runs it is a fifth of a second.
    assert took_ms < 3000
    seen.until("document.querySelector('.table').ariaRowCount === '5002'")
    assert page.locator("[data-row]").count() < 80
    page.keyboard.press("End")
    page.locator("[data-row='5000']").wait_for()
    assert page.locator("[data-row]").count() < 80
    frames = page.evaluate(
        """async () => {
            let longest = 0, before = performance.now();
            for (let n = 0; n < 40; n++) {
                scrollBy(0, -700);
                await new Promise(requestAnimationFrame);
                longest = Math.max(longest, performance.now() - before);
                before = performance.now();
            }
            return longest;
        }"""
    )
    assert frames < 500
    page.get_by_label("Search by name or id").fill("number 17")
    seen.until("document.querySelector('.table')?.ariaRowCount === '112'")


HIDDEN = """
Math.max(0, ...[...document.querySelectorAll('.narrowing, .stacked, .files .scroll')]
    .map((table) => table.scrollWidth - table.clientWidth))
"""
OVERLAPPING = """
[...document.querySelectorAll('.body .row')].filter((row) => {
    const boxes = ['.name', '.doing'].map((part) => {
        const range = document.createRange();
        range.selectNodeContents(row.querySelector(part));
        return range.getBoundingClientRect();
    });
    // Its label is made by the style sheet, so no text of the document has its place.
    boxes.push(row.querySelector('.density').getBoundingClientRect());
    return boxes.some((one, n) => boxes.slice(n + 1).some((other) =>
        one.left < other.right && other.left < one.right
        && one.top < other.bottom - 1 && other.top < one.bottom - 1));
}).length
"""
LOOKS = [
    (PHONE_WIDTH, "light"),
    (WIDE, "dark"),
    pytest.param(PHONE_WIDTH, "dark", marks=pytest.mark.slow),
    pytest.param(WIDE, "light", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_every_view_fits_every_width_and_reads_well(
    local: Service, visit: Visiting, width: int, scheme: str
) -> None:
    done = finished_job(local)
    waits = local.send_job(
        name="a name that goes on for longer than a phone is wide, and then",
        training={"compression_epochs": 3},
    ).json()
    ids = {"model_id": done["model_id"], "dataset_id": done["dataset_id"]}
    grid = {"densities": [0.1, 0.05], "bits": [4, 2]}
    spec = {name: files.SPEC[name] for name in ("method", "threat")}
    sweep = local.http.post("/sweeps", json=ids | {"spec": spec, "grid": grid}).json()
    goal = {"goal": {"robust_accuracy": 0.4}}
    ended = local.http.post("/sweeps", json=ids | {"spec": spec} | goal).json()
    with local.database.write() as session:
        message = "Trial 2 is the smallest that holds 0.4 under worst: 1,205 bytes. " * 2
        told = {"state": SweepState.SUCCEEDED, "message": message}
        session.execute(update(Sweep).where(Sweep.id == ended["id"]).values(told))
    routes = {
        "jobs": "Jobs",
        f"jobs/{done['id']}": "Files",
        f"compare/{done['id']}/{waits['id']}": "Found",
        "new": "What to expect",
        "sweeps": "2 densities",
        f"sweeps/{sweep['id']}": "Trials",
    }
    seen = visit(local, width=width, scheme=scheme)
    for route, text in routes.items():
        seen.go(route)
        seen.page.get_by_text(re.compile(text)).last.wait_for()
        assert seen.width_left_over() <= 0, route
        # What a result is looked for is on the screen, and no part of a row is on another.
        assert seen.page.evaluate(HIDDEN) <= 0, route
        assert seen.page.evaluate(OVERLAPPING) == 0, route
        assert seen.serious() == [], route


def test_the_keyboard_alone_opens_and_cancels_a_job(local: Service, visit: Visiting) -> None:
    for n in range(3):
        local.send_job(name=f"job {n}")
    seen = visit(local)
    page = seen.go("jobs")
    page.get_by_text("job 0").wait_for()
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('[data-row]') !== null"):
            break
        # Whoever goes by keyboard sees where they are.
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        assert page.evaluate(outline) != "none"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "job 2"
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.textContent") == "job 1"
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="job 1", level=1).wait_for()
    seen.until("document.activeElement.tagName === 'H1'")
    for _ in range(5):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Cancel":
            break
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    page.locator(".title .state", has_text="cancelled").wait_for()
