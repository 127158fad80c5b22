"""A siege of seconds finds nothing, and one of a service that is at fault finds it."""

import argparse
import random
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from benchmarks.hostile import draw
from benchmarks.siege import FIGURES, attack, loopback, make_keys
from benchmarks.target import Target, keep_upload, settle
from tests.api.conftest import ADMIN_KEY, broker, running, settings_in, template  # noqa: F401

SECONDS = 2.0


@pytest.fixture
def target(tmp_path: Path, template: Path, broker: str):  # noqa: F811
    """A running API without a worker, and the books on it."""
    settings = settings_in(tmp_path / "data", template, broker)
    settings.admin_key = SecretStr(ADMIN_KEY)
    for service in running(settings):
        url = str(service.http.base_url).rstrip("/")
        yield Target(url, make_keys(url, ADMIN_KEY), SECONDS, most=10_000, has_worker=False)


def test_the_service_withstands_a_siege_of_seconds(target: Target, tmp_path: Path) -> None:
    figures = attack(target, tmp_path, seed=1)
    assert target.faults == []
    assert tuple(figures) == FIGURES
    assert figures["requests"] > 20
    assert figures["hostile_files"] > 0
    assert target.kept


def test_what_is_gone_or_another_is_counted(target: Target) -> None:
    content = b"other bytes"
    document = {"id": "mdl_never", "sha256": "0" * 64, "bytes": len(content)}
    keep_upload(target, "red", "models", document, content)
    target.answered(500, {}, "GET /nowhere")
    target.answered(503, {}, "GET /nowhere")
    for status, headers in ((503, {"retry-after": "1"}), (507, {}), (404, {})):
        target.answered(status, headers, "GET /nowhere")
    settle(target, 0)
    found = [target.counts[name] for name in ("server_errors", "wrong", "lost")]
    assert found == [2, 1, 1]


def test_hostile_files_are_the_same_for_the_same_seed() -> None:
    def some() -> list[tuple[str, str, bytes]]:
        source = random.Random(5)
        drawn = [draw(source, "/nowhere") for _ in range(40)]
        return [(each.kind, each.name, each.content) for each in drawn]

    assert some() == some()
    assert {kind for kind, _, _ in some()} == {"models", "datasets"}


@pytest.mark.parametrize("url", ["http://example.com", "http://10.0.0.5:8000", "http://[::2]/"])
def test_nobody_else_is_attacked(url: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="only a service on this machine"):
        loopback(url)
    assert loopback("http://127.0.0.1:8000/") == "http://127.0.0.1:8000"
    assert httpx.URL(loopback("http://[::1]:8000")).host == "::1"
