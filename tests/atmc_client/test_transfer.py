"""A download arrives whole or not at all, and goes on where it broke off."""

import hashlib
import os
from http.server import BaseHTTPRequestHandler

import pytest

from atmc_client import DigestMismatch
from atmc_client.sync.transfer import fetch
from atmc_client.sync.transport import Transport

CONTENT = os.urandom(300_000)
ARTIFACT = {
    "name": "model.atmc",
    "bytes": len(CONTENT),
    "sha256": hashlib.sha256(CONTENT).hexdigest(),
    "links": {"self": "/jobs/job_1/artifacts/model.atmc"},
}


def serve_range(handler: BaseHTTPRequestHandler) -> None:
    start = int(handler.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
    handler.send_response(206 if "Range" in handler.headers else 200)
    handler.send_header("content-length", str(len(CONTENT) - start))
    handler.end_headers()
    handler.wfile.write(CONTENT[start:])


def serve_whole(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("content-length", str(len(CONTENT)))
    handler.end_headers()
    handler.wfile.write(CONTENT)


def break_off(handler: BaseHTTPRequestHandler) -> None:
    """Promise all of it, send a third, hang up."""
    handler.send_response(200)
    handler.send_header("content-length", str(len(CONTENT)))
    handler.end_headers()
    handler.wfile.write(CONTENT[:100_000])
    handler.close_connection = True


def serve_damaged(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("content-length", str(len(CONTENT)))
    handler.end_headers()
    handler.wfile.write(bytes(len(CONTENT)))


def test_a_broken_download_goes_on_by_range(scripted, tmp_path):
    scripted.script = [break_off, serve_range]
    seen = []
    path = fetch(Transport(scripted.url), ARTIFACT, tmp_path, lambda *state: seen.append(state))
    assert path.read_bytes() == CONTENT
    start = int(scripted.seen[1].headers["Range"].removeprefix("bytes=").rstrip("-"))
    assert 0 < start <= 100_000
    assert seen[-1] == ("model.atmc", len(CONTENT), len(CONTENT))
    assert [file.name for file in tmp_path.iterdir()] == ["model.atmc"]


def test_a_part_of_an_earlier_run_is_gone_on_with(scripted, tmp_path):
    (tmp_path / "model.atmc.part").write_bytes(CONTENT[:1234])
    scripted.script = [serve_range]
    assert fetch(Transport(scripted.url), ARTIFACT, tmp_path).read_bytes() == CONTENT
    assert scripted.seen[0].headers["Range"] == "bytes=1234-"


def test_a_server_without_ranges_starts_the_file_anew(scripted, tmp_path):
    (tmp_path / "model.atmc.part").write_bytes(CONTENT[:1234])
    scripted.script = [serve_whole]
    assert fetch(Transport(scripted.url), ARTIFACT, tmp_path).read_bytes() == CONTENT


def test_a_damaged_file_is_not_kept(scripted, tmp_path):
    scripted.script = [serve_damaged]
    with pytest.raises(DigestMismatch, match=r"model\.atmc"):
        fetch(Transport(scripted.url), ARTIFACT, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_not_fetched_again(scripted, tmp_path):
    (tmp_path / "model.atmc").write_bytes(CONTENT)
    fetch(Transport(scripted.url), ARTIFACT, tmp_path)
    assert scripted.seen == []
