"""`python -m api` as a process: without torch, modest in memory, soon ended."""

import json
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest

from jobstore.settings import Settings
from tests.api import files
from tests.api.conftest import assert_problem, settings_in, wait_until
from tests.api.processes import is_up, refusal, serving

MIB = 2**20


@dataclass
class Started:
    """A process that has answered its first request."""

    process: subprocess.Popen[bytes]
    url: str


@pytest.fixture(scope="module")
def started(
    tmp_path_factory: pytest.TempPathFactory, template: Path, broker: str
) -> Iterator[Started]:
    """One process for the tests that leave it running."""
    settings = settings_in(tmp_path_factory.mktemp("process") / "data", template, broker)
    limits = {"ATMC_MAX_MODEL_BYTES": str(2**30), "ATMC_MAX_DATASET_BYTES": str(2**30)}
    with serving(settings, **limits) as (process, url):
        wait_until(lambda: is_up(url))
        yield Started(process, url)


def test_it_never_loads_torch(started: Started) -> None:
    model = {"file": ("m", files.torch_file())}
    data = {"architecture": files.ARCHITECTURE}
    assert httpx.post(f"{started.url}/models", files=model, data=data).status_code == 201
    maps = Path(f"/proc/{started.process.pid}/maps").read_text()
    assert "/numpy/" in maps
    assert "/torch/" not in maps


def peak_memory(process: subprocess.Popen[bytes]) -> int:
    """The most that the process has ever held, in bytes."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def test_a_large_upload_is_not_held_in_memory(started: Started) -> None:
    def body() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        for _ in range(300):
            yield bytes(MIB)
        yield b"\r\n--x--\r\n"

    httpx.post(f"{started.url}/models", files={"file": ("m", b"")})
    before = peak_memory(started.process)
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    response = httpx.post(f"{started.url}/models", content=body(), headers=headers, timeout=60)
    # Refused for what it is, once all of it is stored; not for its size.
    assert_problem(response, 422, "malformed_model", "file")
    assert peak_memory(started.process) - before < 50 * MIB


def test_a_large_upload_in_pieces_is_not_held_in_memory(started: Started) -> None:
    tus = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}
    with httpx.Client(base_url=started.url, timeout=60) as http:
        begun = http.post("/uploads", headers=tus | {"Upload-Length": str(300 * MIB)})
        url = begun.headers["Location"]
        before = peak_memory(started.process)
        for offset in (0, 150 * MIB):
            body = (bytes(MIB) for _ in range(150))
            sent = http.patch(url, content=body, headers=tus | {"Upload-Offset": str(offset)})
            assert sent.status_code == 204
        body = {"upload_id": url.rpartition("/")[2], "architecture": files.ARCHITECTURE}
        assert_problem(http.post("/models", json=body), 422, "malformed_model", "upload_id")
        assert peak_memory(started.process) - before < 50 * MIB
        http.delete(url)


@pytest.mark.parametrize(
    "beginning",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Endless: ",
        b"GET /?",
        (
            b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"1\r\n{\r\n0\r\nX-Endless: "
        ),
    ],
    ids=["header", "line", "trailer"],
)
def test_headers_without_end_are_refused(started: Started, beginning: bytes) -> None:
    host, port = started.url.removeprefix("http://").split(":")
    sent, more = 0, b"x" * 65_536
    with (
        socket.create_connection((host, int(port)), timeout=20) as connection,
        suppress(ConnectionError),
    ):
        connection.sendall(beginning)
        while sent < 64 * MIB:
            connection.sendall(more)
            sent += len(more)
    # What fits into the buffers on the way may go unnoticed.
    assert sent < 16 * MIB
    assert is_up(started.url)


def test_headers_as_long_as_anybody_s_are_read(started: Started) -> None:
    headers = {f"X-Long-{number}": "x" * 4096 for number in range(12)}
    assert httpx.get(f"{started.url}/healthz", headers=headers).is_success


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_an_address_that_other_machines_reach_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"ATMC_HOST={host}: ")):
        Settings(host=host)
    assert Settings(host=host, admin_key="a-secret-of-24-characters").host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_a_loopback_address_is_listened_to(host: str) -> None:
    assert Settings(host=host).host == host


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [("ATMC_HOST", "0.0.0.0", "Set ATMC_HOST=127.0.0.1"), ("ATMC_PORT", "many", "port")],
)
def test_settings_that_cannot_be_served_end_it_with_a_sentence(
    settings: Settings, setting: str, value: str, said: str
) -> None:
    told = refusal(**{"ATMC_HOME": str(settings.home), setting: value})
    assert said in told
    assert "Traceback" not in told


def test_it_ends_within_seconds_even_while_somebody_waits(settings: Settings) -> None:
    spec = json.dumps({"architecture": files.ARCHITECTURE, **files.SPEC})
    parts = {"spec": spec, "model": files.torch_file(), "dataset": files.npz_file()}
    with serving(settings) as (process, url):
        wait_until(lambda: is_up(url))
        job = httpx.post(f"{url}/jobs", files={k: (k, v) for k, v in parts.items()}).json()
        waiting = HTTPConnection(url.removeprefix("http://"), timeout=60)
        waiting.request("GET", job["links"]["self"] + "?wait=60")
        assert is_up(url)  # so what was sent before has come in, too
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=5) in (0, -signal.SIGTERM)
        assert json.load(waiting.getresponse())["state"] == "queued"
