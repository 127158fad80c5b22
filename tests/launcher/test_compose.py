"""docker-compose.yml holds what the code knows: real settings, real modules, real files."""

import importlib.util
import re
from pathlib import Path

import pytest
import yaml

from jobstore.settings import Settings
from launcher.service import WORKER_GRACE_S

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
OURS = ("migrate", "api", "sweep", "worker-cpu", "worker-gpu")


def test_the_services_of_the_design_are_there():
    assert set(SERVICES) == {*OURS, "postgres", "valkey", "seaweedfs"}
    assert SERVICES["worker-cpu"]["profiles"] == ["cpu"]
    assert SERVICES["worker-gpu"]["profiles"] == ["gpu"]


@pytest.mark.parametrize("name", OURS)
def test_every_setting_is_one(name):
    given = {key for key in SERVICES[name]["environment"] if key.startswith("ATMC_")}
    known = {f"ATMC_{field.upper()}" for field in Settings.model_fields}
    assert len(given) >= 7
    assert given <= known


def test_the_settings_choose_the_servers(monkeypatch):
    for key, value in SERVICES["worker-gpu"]["environment"].items():
        monkeypatch.setenv(key, re.sub(r"\$\{\w+(:[-?])?([^}]*)\}", "secret", str(value)))
    settings = Settings()
    assert settings.database_url.startswith("postgresql://")
    assert settings.broker_url == "redis://:secret@valkey:6379/0"
    assert settings.store_url.startswith("s3://")
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


@pytest.mark.parametrize("name", [*OURS, "postgres", "valkey"])
def test_a_service_has_no_more_of_the_machine_than_it_needs(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["tmpfs"][0] == "/tmp"
    # Ours get theirs from the Dockerfile.
    assert name in OURS or service["user"] == "999:999"


@pytest.mark.parametrize("name", [name for name in SERVICES if name not in OURS])
def test_an_image_of_others_is_pinned_to_a_version(name):
    assert re.fullmatch(r"[a-z./-]+:\d+\.\d+(\.\d+)?(-alpine)?", SERVICES[name]["image"])


def test_the_images_hold_what_their_commands_need():
    api = (ROOT / "docker/api.Dockerfile").read_text()
    worker = (ROOT / "docker/worker.Dockerfile").read_text()
    assert "'.[api]'" in api
    assert "atmc_core" not in api
    assert "'.[worker]'" in worker
    assert "COPY atmc_core" in worker


@pytest.mark.parametrize("name", ["worker-cpu", "worker-gpu"])
def test_a_worker_gets_the_time_to_give_its_job_back(name):
    assert float(SERVICES[name]["stop_grace_period"].rstrip("s")) > WORKER_GRACE_S - 1


def test_what_waits_for_a_service_waits_for_one_that_can_say_so():
    for service in SERVICES.values():
        for name, wish in service.get("depends_on", {}).items():
            if wish["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[name]


def test_the_api_that_others_reach_asks_for_a_key():
    environment = SERVICES["api"]["environment"]
    assert environment["ATMC_HOST"] == "0.0.0.0"
    assert environment["ATMC_ADMIN_KEY"] == "${ADMIN_KEY:?set it in .env}"
    assert not [name for name in OURS if name != "api" and "ATMC_ADMIN_KEY" in str(SERVICES[name])]


def test_secrets_have_no_default():
    text = (ROOT / "docker-compose.yml").read_text()
    example = (ROOT / "docker/env.example").read_text()
    secrets = set(re.findall(r"\$\{(\w+):\?", text))
    assert secrets == {name for name in re.findall(r"^(\w+)=$", example, re.M) if "PIP" not in name}
    defaults = re.findall(r"\$\{(\w+):-", text)
    assert not [name for name in defaults if "PASSWORD" in name or "KEY" in name]
