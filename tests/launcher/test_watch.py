"""Alert rules and the dashboard speak of figures that the service shows."""

import json
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client import generate_latest

from api.requests import RequestMetrics
from api.services import open_services
from jobstore import leases, metrics
from jobstore.database import migrate
from jobstore.settings import Settings

DOCKER = Path(__file__).parents[2] / "docker"
RULES = yaml.safe_load((DOCKER / "prometheus" / "alerts.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((DOCKER / "grafana" / "dashboards" / "atmc.json").read_text())


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of all figures of a service in which everything has happened once."""
    services = open_services(Settings(home=tmp_path_factory.mktemp("watch")))
    migrate(services.database.engine)
    counted = RequestMetrics(services.registry)
    counted.requests.labels("GET", "/jobs", 200).inc()
    counted.seconds.labels("GET", "/jobs").observe(0.1)
    with services.database.write() as session:
        leases.sweep(session)
        metrics.observe(session, metrics.JOB_SECONDS, 1, state="succeeded")
        metrics.observe(session, metrics.STAGE_SECONDS, 1, stage="x")
        metrics.count(session, metrics.UPLOADED_BYTES, 1, kind="model")
        metrics.count(session, metrics.WEBHOOK_DELIVERIES, outcome="delivered")
        for name in (metrics.GPU_USED, metrics.GPU_TOTAL):
            metrics.tell(session, name, 1, worker="w", gpu="0")
    text = generate_latest(services.registry).decode()
    services.database.engine.dispose()
    return set(re.findall(r"^(atmc_\w+)", text, re.MULTILINE))


def named(expression: str) -> set[str]:
    """The figures that an expression names."""
    return set(re.findall(r"\batmc_\w+", expression))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_speaks_of_figures_that_are_shown(rule: dict[str, str], shown: set[str]) -> None:
    assert named(rule["expr"]) <= shown
    assert named(rule["expr"]) or rule["expr"].startswith("up{")
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"].keys() == {"summary", "description"}
    assert rule["expr"].count("(") == rule["expr"].count(")")


def test_the_dashboard_speaks_of_figures_that_are_shown(shown: set[str]) -> None:
    targets = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    assert set().union(*map(named, targets)) <= shown
    assert all(named(target) for target in targets)
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids)) >= 12


def test_the_alerts_of_the_runbook_are_those_that_there_are() -> None:
    runbook = (DOCKER.parent / "docs" / "operations.md").read_text()
    assert set(re.findall(r"`(Atmc\w+)`", runbook)) == {rule["alert"] for rule in RULES}


def test_what_is_mounted_is_there() -> None:
    watch = yaml.safe_load((DOCKER / "watch.yml").read_text())
    for service in watch["services"].values():
        for volume in service["volumes"]:
            source = volume.partition(":")[0]
            assert source in watch["volumes"] or (DOCKER.parent / source).is_dir()
