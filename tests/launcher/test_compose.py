"""docker-compose.yml holds what the code knows: real settings, real modules, real files."""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from api.connections import BODY_S, HEADER_S
from jobstore.settings import Settings
from launcher.service import WORKER_GRACE_S

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
LIMITS = {"header": HEADER_S, "body": BODY_S}
OURS = ("migrate", "api", "keeper", "worker-cpu", "worker-gpu")


def test_the_services_of_the_design_are_there():
    assert set(SERVICES) == {*OURS, "postgres", "valkey", "seaweedfs", "proxy"}
    assert SERVICES["worker-cpu"]["profiles"] == ["cpu"]
    assert SERVICES["worker-gpu"]["profiles"] == ["gpu"]


@pytest.mark.parametrize("name", OURS)
def test_every_setting_is_one(name):
    given = {key for key in SERVICES[name]["environment"] if key.startswith("ATMC_")}
    known = {f"ATMC_{field.upper()}" for field in Settings.model_fields}
    assert len(given) >= 7
    assert given <= known | {"ATMC_SECRETS_DIR"}
    secrets = {secret["target"].upper() for secret in SERVICES[name]["secrets"]}
    assert len(secrets) == {"api": 5, "keeper": 4}.get(name, 3)
    assert secrets <= known


def test_the_settings_choose_the_servers_and_their_passwords_come_from_files(monkeypatch, tmp_path):
    for key, value in SERVICES["worker-gpu"]["environment"].items():
        monkeypatch.setenv(key, re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value)))
    monkeypatch.setenv("ATMC_SECRETS_DIR", str(tmp_path))
    for secret in SERVICES["worker-gpu"]["secrets"]:
        (tmp_path / secret["target"]).write_text(secret["source"])
    settings = Settings()
    assert settings.database_url == "postgresql://atmc:postgres@postgres:5432/atmc"
    assert settings.broker_url == "redis://:valkey@valkey:6379/0"
    assert settings.store_url.startswith("s3://")
    assert settings.store_secret_access_key.get_secret_value() == "store"
    assert settings.device == "cuda"


@pytest.mark.parametrize("name", OURS)
def test_every_command_runs_a_module_of_ours(name):
    match SERVICES[name]["command"]:
        case ["python", "-m", module]:
            assert importlib.util.find_spec(module) is not None
        case ["celery", "-A", module, "worker"]:
            assert importlib.util.find_spec(module) is not None
        case other:
            pytest.fail(f"{other} is no command of ours")


@pytest.mark.parametrize("name", OURS)
def test_every_image_is_built_from_folders_that_exist_and_runs_without_root(name):
    path = ROOT / SERVICES[name]["build"]["dockerfile"]
    dockerfile = path.read_text()
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE)
    sources = [source for line in copied for source in line.split()]
    assert sources
    assert all((ROOT / source).exists() for source in sources)
    allowed = Path(f"{path}.dockerignore").read_text().splitlines()
    assert all(f"!{source}" in allowed for source in sources)
    assert re.findall(r"^USER (\d+)$", dockerfile, re.MULTILINE) == ["10001"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_no_more_of_the_machine_than_it_needs(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["tmpfs"][0] == "/tmp"
    if name == "seaweedfs":
        # As root, but with no more of its power than to write into the volume of another user.
        assert service["cap_add"] == ["CHOWN", "DAC_OVERRIDE", "FOWNER"]
        return
    assert "cap_add" not in service
    # Ours get theirs from the Dockerfile.
    assert name in OURS or re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"])


@pytest.mark.parametrize("name", [name for name in SERVICES if name not in OURS])
def test_an_image_of_others_is_pinned_to_a_version(name):
    assert re.fullmatch(r"[a-z./-]+:\d+\.\d+(\.\d+)?(-alpine)?", SERVICES[name]["image"])


@pytest.mark.parametrize("name", ["api", "worker"])
def test_an_image_of_ours_is_built_on_one_pinned_to_a_version(name):
    bases = re.findall(r"^FROM (\S+)", (ROOT / f"docker/{name}.Dockerfile").read_text(), re.M)
    assert bases
    assert all(re.fullmatch(r"python:3\.11\.\d+-slim-[a-z]+", base) for base in bases)


def test_the_images_hold_what_their_commands_need():
    api = (ROOT / "docker/api.Dockerfile").read_text()
    worker = (ROOT / "docker/worker.Dockerfile").read_text()
    assert "'.[api,keeper]'" in api
    assert "COPY keeper" in api
    assert "COPY atmc_spec" in api
    assert "atmc_core" not in api
    assert "'.[worker]'" in worker
    assert "COPY atmc_core" in worker
    assert "COPY atmc_reader" in worker
    assert "COPY atmc_spec" in worker


@pytest.mark.parametrize("name", ["worker-cpu", "worker-gpu"])
def test_a_worker_gets_the_time_to_give_its_job_back(name):
    assert float(SERVICES[name]["stop_grace_period"].rstrip("s")) > WORKER_GRACE_S - 1


def test_what_waits_for_a_service_waits_for_one_that_can_say_so():
    awaited = {
        name
        for service in SERVICES.values()
        for name, wish in service.get("depends_on", {}).items()
        if wish["condition"] == "service_healthy"
    }
    assert awaited >= {"postgres", "valkey", "seaweedfs"}
    assert awaited <= {name for name, service in SERVICES.items() if "healthcheck" in service}


def test_the_api_that_others_reach_asks_for_a_key():
    assert SERVICES["api"]["environment"]["ATMC_HOST"] == "0.0.0.0"
    admin = {"source": "admin", "target": "atmc_admin_key"}
    assert [name for name in SERVICES if admin in SERVICES[name].get("secrets", [])] == ["api"]


def test_nobody_reaches_the_api_but_through_the_proxy_that_has_limits():
    assert "ports" not in SERVICES["api"]
    assert SERVICES["proxy"]["ports"] == ["127.0.0.1:8000:8080"]
    (volume,) = SERVICES["proxy"]["volumes"]
    source, target, mode = volume.split(":")
    assert (mode, target) == ("ro", SERVICES["proxy"]["command"][2])
    config = (ROOT / source).read_text()
    # As the API's own, and what would break it: buffers in the way of uploads and event streams.
    header, body = (f"client_{part}_timeout {seconds:.0f}s;" for part, seconds in LIMITS.items())
    for line in (header, body, "limit_conn address ", "client_max_body_size 0;"):
        assert line in config
    for line in ("proxy_buffering off;", "proxy_request_buffering off;"):
        assert line in config
    # All that it writes is in /tmp, the rest is read-only.
    written = re.findall(r"^\s*(?:pid|\w+_temp_path) (\S+);", config, re.MULTILINE)
    assert len(written) == 6
    assert all(path.startswith("/tmp/") for path in written)


def test_the_proxy_alone_says_who_calls():
    subnet = SERVICES["api"]["environment"]["ATMC_TRUSTED_PROXIES"]
    assert COMPOSE["networks"]["front"]["ipam"]["config"] == [{"subnet": subnet}]
    assert [n for n in SERVICES if "front" in SERVICES[n].get("networks", [])] == ["api", "proxy"]
    assert SERVICES["proxy"]["networks"] == ["front"]
    config = (ROOT / "docker/proxy/nginx.conf").read_text()
    # Set, not extended: what a caller sends of it does not go on.
    assert "proxy_set_header X-Forwarded-For $remote_addr;" in config
    default = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", subnet)
    assert Settings(trusted_proxies=default).proxies() == [default]


def test_https_is_a_file_more():
    more = yaml.safe_load((ROOT / "docker/tls.yml").read_text())
    (volume,) = more["services"]["proxy"]["volumes"]
    source, target, _ = volume.split(":")
    included = re.search(r"include (\S+)/\*\.conf;", (ROOT / "docker/proxy/nginx.conf").read_text())
    assert Path(target).parent == Path(included[1])
    lines = (ROOT / source).read_text()
    for secret in more["secrets"]:
        assert f"/run/secrets/{secret};" in lines
        assert secret in more["services"]["proxy"]["secrets"]
    port = re.search(r"listen (\d+) ssl", lines)[1]
    assert more["services"]["proxy"]["ports"][0].endswith(f":443:{port}")


def test_only_who_shows_or_uses_secrets_has_their_key():
    vault = {"source": "vault", "target": "atmc_secrets_key"}
    having = [name for name in SERVICES if vault in SERVICES[name].get("secrets", [])]
    assert having == ["api", "keeper"]


def test_secrets_are_files_that_one_script_makes(tmp_path):
    script = shutil.copy(ROOT / "docker/secrets.sh", tmp_path)
    subprocess.run(["sh", script], check=True)
    made = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    assert {f"docker/secrets/{name}" for name in made} == {
        secret["file"] for secret in COMPOSE["secrets"].values()
    }
    assert all(re.fullmatch(r"[0-9a-f]{48}\n", text) for text in made.values())
    assert len(set(made.values())) == len(made)
    assert (tmp_path / "secrets").stat().st_mode & 0o077 == 0
    subprocess.run(["sh", script], check=True)
    assert made == {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    # And none stands in a variable, which every process and `docker inspect` would show.
    for service in SERVICES.values():
        shown = [
            *service.get("environment", {}),
            *map(str, service.get("environment", {}).values()),
        ]
        assert not [text for text in shown if re.search("PASSWORD$|_KEY$|://[^/]*:[^/]*@", text)]


@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"migrate"}))
def test_every_service_that_stays_up_says_whether_it_is_well(name):
    assert SERVICES[name]["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
