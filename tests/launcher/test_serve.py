"""`python -m launcher`: all parts come up together, stay up, and leave nothing behind."""

import json
import signal
import socket
import subprocess
import urllib.error
import urllib.request

import pytest

from atmc_client import Client
from launcher.broker import prepare_broker
from tests.launcher.test_private import POWERLESS, is_closed

PARTS = ("valkey-server", "-m api", "-m keeper", "-m celery", "-m launcher.watchdog")


def get(url):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=5) as answer:
        return json.load(answer)


def test_a_service_lives_in_its_folder_heals_and_ends_without_a_trace(launch):
    service = launch("--port", "0")
    service.wait_ready()
    announced = json.loads((service.folder / "service.json").read_text())
    assert announced["pid"] == service.process.pid
    assert f"ready: {announced['url']}  docs: {announced['url']}/docs" in service.output()
    assert f"data folder {service.folder}" in service.output()
    assert get(f"{announced['url']}/readyz")["status"] == "ready"
    assert "atmc" in [method["name"] for method in get(f"{announced['url']}/methods")["data"]]
    for part in PARTS:
        assert service.part(part).is_running()
    # All of it is its user's alone; a job's user may at most pass through.
    for path in (service.folder, *service.folder.rglob("*")):
        assert path.is_symlink() or path.stat().st_mode & 0o066 == 0, path
    logs = {log.name for log in (service.folder / "logs").iterdir()}
    assert logs == {"broker.log", "api.log", "keeper.log", "worker-1.log"}

    second = launch("--port", "0")
    assert second.process.wait(timeout=30) == 2
    assert f"a service already runs on {service.folder} ({announced['url']}" in second.output()

    service.part("-m api").kill()
    service.wait_said("api ended unexpectedly (signal 9), restarting in 1 s")
    service.part("-m launcher.watchdog").kill()
    service.wait_said("the watchdog ended unexpectedly; starting another")
    service.wait_said("api started again")
    assert service.part("-m launcher.watchdog").is_running()

    service.process.send_signal(signal.SIGINT)
    assert service.process.wait(timeout=35) == 0, service.output()
    assert [each.cmdline() for each in service.processes()] == []
    assert not (service.folder / "service.json").exists()
    assert service.output().endswith("ended\n")


@pytest.mark.slow
def test_nothing_outlives_a_killed_launcher_nor_hinders_the_next(launch, tmp_path):
    """And the next, which is given a broker of one's own, uses that and leaves it alone."""
    first = launch("--port", "0")
    first.wait_ready()
    first.part("-m launcher.watchdog").kill()
    first.process.kill()
    first.process.wait()
    orphans = first.processes()
    assert len(orphans) >= 4

    broker = prepare_broker(tmp_path)
    server = subprocess.Popen(broker.command, stdout=subprocess.DEVNULL)
    try:
        second = launch("--port", "0", ATMC_BROKER_URL=broker.url)
        second.wait_ready()
        assert not [orphan for orphan in orphans if orphan.is_running()]
        assert not [p for p in second.processes() if "valkey-server" in p.name()]

        second.process.kill()
        second.process.wait()
        second.wait_gone(within_s=10)
        assert server.poll() is None
    finally:
        server.terminate()
        server.wait()


def test_a_taken_port_is_refused(launch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        service = launch("--port", str(port))
        assert service.process.wait(timeout=30) == 2
    assert f"cannot listen on 127.0.0.1 port {port} (Address already in use)" in service.output()
    assert "--port" in service.output()


def test_an_address_that_others_reach_is_refused_without_keys(launch):
    refused = launch("--port", "0", "--host", "0.0.0.0")
    assert refused.process.wait(timeout=30) == 2
    assert "ATMC_HOST=0.0.0.0: without ATMC_ADMIN_KEY" in refused.output()


@pytest.mark.slow
def test_with_an_admin_s_key_it_listens_there_and_asks_for_one(launch, tmp_path):
    """And only the API gets that key, by a variable or by a file; no part's memory is open."""
    key = "the-secret-of-an-operator"
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "atmc_admin_key").write_text(key)
    service = launch(
        *("--port", "0", "--host", "0.0.0.0"),
        within=POWERLESS,
        ATMC_SECRETS_DIR=str(secrets),
        ATMC_SECRETS_KEY="the-key-of-what-is-sealed",
    )
    service.wait_ready()
    url = json.loads((service.folder / "service.json").read_text())["url"]
    with pytest.raises(urllib.error.HTTPError, match="401"):
        get(f"{url}/jobs")
    with Client(url, key=key) as client:
        assert client.list_jobs() == []
    assert key not in service.output()
    environments = {part: service.part(part).environ() for part in PARTS}
    having = {
        name: [part for part in PARTS if name in environments[part]]
        for name in ("ATMC_ADMIN_KEY", "ATMC_SECRETS_KEY", "ATMC_SECRETS_DIR", "ATMC_HOME")
    }
    assert having == {
        "ATMC_ADMIN_KEY": ["-m api"],
        "ATMC_SECRETS_KEY": ["-m api", "-m keeper"],
        "ATMC_SECRETS_DIR": [],
        "ATMC_HOME": ["-m api", "-m keeper", "-m celery"],
    }
    for part in PARTS:
        assert (key in str(environments[part])) == (part == "-m api"), part
    for part in PARTS[1:]:
        assert is_closed(service.part(part).pid), part


@pytest.mark.slow
def test_a_part_that_cannot_start_is_named_with_the_end_of_its_log(launch, tmp_path):
    (tmp_path / "signing.pem").write_text("no key")
    service = launch("--port", "0", ATMC_SIGNING_KEY_FILE=str(tmp_path / "signing.pem"))
    assert service.process.wait(timeout=120) == 1, service.output()
    assert "does not start; its log ends:" in service.output()
    assert "signing.pem" in service.output()
    assert service.processes() == []


def test_a_store_that_cannot_be_used_is_named(launch):
    service = launch("--port", "0", ATMC_STORE_URL="gopher://nowhere")
    assert service.process.wait(timeout=60) == 1, service.output()
    assert "error: ATMC_STORE_URL: 'gopher' is not one of file, s3" in service.output()
    assert "does not start" not in service.output()
    assert service.processes() == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://127.0.0.1/atmc", "'mysql' is not one of postgresql, sqlite"),
        ("postgresql://atmc@127.0.0.1:1/atmc", "onnection"),
    ],
)
def test_a_database_that_cannot_be_used_is_named(launch, url, said):
    service = launch("--port", "0", ATMC_DATABASE_URL=url)
    assert service.process.wait(timeout=60) == 1, service.output()
    assert "error: the database that ATMC_DATABASE_URL names: " in service.output()
    assert said in service.output()
    assert "Traceback" not in service.output()
    assert service.processes() == []
