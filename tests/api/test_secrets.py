"""Secrets stay where they are: not in logs, not in answers, not where settings are shown."""

import re
from pathlib import Path

import httpx
import pytest

from jobstore.settings import Settings
from tests.api import files
from tests.api.conftest import settings_in, wait_until
from tests.api.processes import is_up, log_of, refusal, serving

SECRETS = {
    "ATMC_ADMIN_KEY": "hush-hush-the-first-admin-of-all",
    "ATMC_STORE_SECRET_ACCESS_KEY": "hush-hush-the-store",
}


def test_neither_keys_nor_payloads_are_logged_or_answered(
    tmp_path: Path, template: Path, broker: str
) -> None:
    settings = settings_in(tmp_path / "data", template, broker)
    answers: list[httpx.Response] = []
    with (
        serving(settings, **SECRETS) as (process, url),
        httpx.Client(base_url=url, timeout=20) as http,
    ):
        wait_until(lambda: is_up(url))

        def send(key: str, method: str, path: str, **body: object) -> httpx.Response:
            headers = {"Authorization": f"Bearer {key}"}
            answers.append(http.request(method, path, headers=headers, **body))
            return answers[-1]

        admin = SECRETS["ATMC_ADMIN_KEY"]
        new = {"tenant": "red", "scopes": ["jobs:read", "jobs:write"]}
        made = send(admin, "POST", "/keys", json=new).json()
        key = made["key"]
        parts = {"file": ("m", files.safetensors_file())}
        send(key, "POST", "/models", files=parts, data={"architecture": "of-my-secret-plans"})
        send(key, "POST", "/jobs", json={"name": "of-my-secret-plans", "method": 1})
        send(key, "GET", "/jobs")
        send(key, "GET", "/keys")
        send(f"{key}x", "GET", "/jobs")
        send(admin, "GET", "/keys")
        send(admin, "DELETE", f"/keys/{made['id']}")
        send(key, "GET", "/jobs")
        process.terminate()
        process.wait(60)
    logged = log_of(settings).read_text()
    assert len(re.findall(r" request .*status=", logged)) >= len(answers)
    for secret in (key, *SECRETS.values(), "of-my-secret-plans"):
        assert secret not in logged
    assert {answer.status_code for answer in answers} >= {200, 201, 204, 401, 403, 422}
    for answer in answers[1:]:
        for secret in (key, *SECRETS.values()):
            assert secret not in answer.text + str(answer.headers)


def test_settings_do_not_show_their_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert "hush" not in shown
    assert settings.admin_key is not None
    assert settings.admin_key.get_secret_value() == SECRETS["ATMC_ADMIN_KEY"]


def test_a_short_admin_key_is_refused_without_being_shown(tmp_path: Path) -> None:
    told = refusal(ATMC_HOME=str(tmp_path), ATMC_ADMIN_KEY="hush-too-short")
    assert "admin_key" in told
    assert "hush" not in told
