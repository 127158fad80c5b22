"""Signing in on the page by a real provider, in a real browser."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Page, Request
from pydantic import SecretStr

from tests.api.conftest import Service, assert_problem, running
from tests.api.provider import AUDIENCE, Provider, providing, settings_for

CLAIMS = {"tenant": "red", "scope": "jobs:read jobs:write"}


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with providing() as made:
        yield made


@pytest.fixture(scope="module")
def service(
    provider: Provider, tmp_path_factory: pytest.TempPathFactory, template: Path, broker: str
) -> Iterator[Service]:
    """A running API that signs people in by the provider."""
    home = tmp_path_factory.mktemp("sign-in") / "data"
    client: dict[str, Any] = {"oidc_client_id": AUDIENCE, "oidc_client_secret": SecretStr("any")}
    yield from running(settings_for(provider.issuer, home, template, broker, **client))


@pytest.fixture
def page(browser: Browser, provider: Provider) -> Iterator[Page]:
    """A tab, which goes to the provider and asks it for nothing behind somebody's back."""
    with httpx.Client(base_url=provider.issuer, trust_env=False) as http:
        http.put("/users/alice", json=CLAIMS).raise_for_status()
        http.put("/users/nobody", json={}).raise_for_status()
    context = browser.new_context(viewport={"width": 900, "height": 800})
    context.set_default_timeout(15_000)
    tab = context.new_page()
    behind: list[str] = []

    def note(asked: Request) -> None:
        if asked.url.startswith(provider.issuer) and not asked.frame.url.startswith(
            provider.issuer
        ):
            behind.extend([asked.url] * (not asked.is_navigation_request()))

    tab.on("request", note)
    yield tab
    context.close()
    assert behind == []


def base(service: Service) -> str:
    return str(service.http.base_url).rstrip("/")


def go_there(page: Page, provider: Provider, service: Service, route: str = "") -> None:
    """From the page to the provider's form."""
    page.goto(f"{base(service)}/{route}")
    page.get_by_role("button", name=f"Sign in with 127.0.0.1:{provider.port}").click()
    page.wait_for_url(f"{provider.issuer}/**")


def test_somebody_signs_in_by_the_provider_and_comes_back_to_where_they_were(
    page: Page, provider: Provider, service: Service
) -> None:
    go_there(page, provider, service, "#/sweeps")
    asked = parse_qs(urlsplit(page.url).query)
    assert asked["code_challenge_method"] == ["S256"]
    assert len(asked["code_challenge"][0]) == 43
    assert asked["redirect_uri"] == [f"{base(service)}/"]
    page.locator("input[name=sub]").fill("alice")
    page.locator("input[name=sub]").press("Enter")
    page.get_by_role("heading", name="Sweeps", level=1).wait_for()
    # No code stays in the address, which a history keeps.
    assert page.evaluate("location.href") == f"{base(service)}/#/sweeps"
    token = page.evaluate("sessionStorage.getItem('atmc-key')")
    assert service.http.get("/jobs", headers={"Authorization": f"Bearer {token}"}).is_success
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("heading", name="Sign in", level=1).wait_for()


def test_whoever_may_do_nothing_here_is_told_why(
    page: Page, provider: Provider, service: Service
) -> None:
    go_there(page, provider, service)
    page.locator("input[name=sub]").fill("nobody")
    page.locator("input[name=sub]").press("Enter")
    page.get_by_text("is to name one tenant").first.wait_for()


def test_an_answer_to_another_tab_is_not_taken(
    page: Page, provider: Provider, service: Service
) -> None:
    page.goto(f"{base(service)}/?code=of-somebody-else&state=theirs")
    page.get_by_text("to no question of this tab").wait_for()
    assert page.evaluate("location.href") == f"{base(service)}/"
    assert page.evaluate("sessionStorage.getItem('atmc-key')") is None
    page.goto(f"{base(service)}/?error=access_denied&error_description=No+way+in")
    page.get_by_text("No way in").wait_for()


def test_codes_that_stand_for_nothing_are_refused(service: Service) -> None:
    sent = {"code": "made-up", "verifier": "v" * 43, "redirect_uri": "http://127.0.0.1/"}
    refused = service.http.post("/page/sign-in", json=sent)
    assert_problem(refused, 401, "token_invalid")
    short = service.http.post("/page/sign-in", json=sent | {"verifier": "short"})
    assert_problem(short, 422, "invalid_value", "verifier")


def test_without_a_client_there_is_no_such_way_in(local: Service) -> None:
    assert local.http.get("/page.json").json()["signs_in_there"] is False
    assert_problem(local.http.get("/page/sign-in"), 404, "not_found")
