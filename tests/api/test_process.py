"""`python -m api` as a process: quick to start, without torch, modest in memory, soon ended."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from api.__main__ import check_host
from jobstore.settings import Settings
from launcher.ports import free_port
from tests.api import files
from tests.api.conftest import wait_until

MIB = 2**20


@contextmanager
def serving(settings: Settings, **changes: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run `python -m api`; yields the process and its URL at once, before it answers."""
    port = free_port("127.0.0.1")
    environment = {
        "ATMC_DATA_DIR": str(settings.data_dir),
        "ATMC_BROKER_URL": settings.broker_url,
        "ATMC_PORT": str(port),
        **changes,
    }
    command = [sys.executable, "-m", "api"]
    process = subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.DEVNULL)
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").is_success
    except httpx.TransportError:
        return False


def test_it_starts_in_under_two_seconds(settings: Settings) -> None:
    with serving(settings) as (process, url):
        wait_until(lambda: answers(url), timeout_s=30)
        # Of processor time: it waits for nothing, and neighbours are not what is measured.
        times = psutil.Process(process.pid).cpu_times()
    assert times.user + times.system < 2


def test_it_never_loads_torch(settings: Settings) -> None:
    with serving(settings) as (process, url):
        wait_until(lambda: answers(url), timeout_s=30)
        parts = {
            "spec": (None, b'{"architecture": "digits_cnn", "method": "atmc"}'),
            "model": ("m", files.torch_file()),
        }
        assert httpx.post(f"{url}/jobs", files=parts).status_code == 422
        model = {"file": ("m", files.torch_file())}
        data = {"architecture": files.ARCHITECTURE}
        assert httpx.post(f"{url}/models", files=model, data=data).status_code == 201
        maps = Path(f"/proc/{process.pid}/maps").read_text()
    assert "python" in maps
    assert "/torch/" not in maps


def peak_memory(process: subprocess.Popen[bytes]) -> int:
    """The most that the process has ever held, in bytes."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


@pytest.mark.parametrize("path", ["/models", "/datasets"])
def test_a_large_upload_is_not_held_in_memory(settings: Settings, path: str) -> None:
    def body() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        for _ in range(300):
            yield bytes(MIB)
        yield b"\r\n--x--\r\n"

    with serving(settings, ATMC_MAX_MODEL_BYTES=str(2**30), ATMC_MAX_DATASET_BYTES=str(2**30)) as (
        process,
        url,
    ):
        wait_until(lambda: answers(url), timeout_s=30)
        httpx.post(f"{url}/models", files={"file": ("m", b"")})
        before = peak_memory(process)
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        response = httpx.post(url + path, content=body(), headers=headers, timeout=60)
        # Refused for what it is, once all of it is stored; not for its size.
        assert response.status_code == 422
        assert response.json()["code"] in ("malformed_model", "malformed_dataset")
        assert peak_memory(process) - before < 50 * MIB


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_an_address_that_other_machines_reach_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"ATMC_HOST={host}: ")):
        check_host(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_a_loopback_address_is_listened_to(host: str) -> None:
    check_host(host)


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [("ATMC_HOST", "0.0.0.0", "Set ATMC_HOST=127.0.0.1"), ("ATMC_PORT", "many", "port")],
)
def test_settings_that_cannot_be_served_end_it_with_a_sentence(
    settings: Settings, setting: str, value: str, said: str
) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "api"],
        env=os.environ | {"ATMC_DATA_DIR": str(settings.data_dir), setting: value},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_it_ends_in_order_within_seconds(settings: Settings) -> None:
    with serving(settings) as (process, url):
        wait_until(lambda: answers(url), timeout_s=30)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=5) in (0, -signal.SIGTERM)
