"""docker/kubernetes/ says what docker-compose.yml says, and its parts fit each other."""

import copy
import re
from typing import Any

import pytest
import yaml
from sqlalchemy import text

from jobstore import leases, traces
from jobstore.settings import Settings
from jobstore.workers import Offer
from tests.bench import Bench, bench, column, settings, store  # noqa: F401
from tests.launcher.containers import ROOT, SERVICES
from tests.launcher.kubernetes import FOLDER, OVERLAYS, VERSIONS, Resource, built, check

# The services of docker-compose.yml that are ours, and what runs them here.
PODS = {
    "api": ("cpu", "Deployment", "api"),
    "keeper": ("cpu", "Deployment", "keeper"),
    "migrate": ("cpu", "Job", "migrate"),
    "worker-cpu": ("cpu", "Deployment", "worker-cpu"),
    "worker-gpu": ("gpu", "Deployment", "worker-gpu"),
}
# Settings that only an orchestrator of several needs.
MORE = {"ATMC_LOG_FORMAT", "ATMC_DRAIN_S", "ATMC_FINISH_S"}


def found(overlay: str, kind: str, name: str | None = None) -> list[Resource]:
    named = [r for r in built(overlay) if r["kind"] == kind]
    return [r for r in named if name is None or r["metadata"]["name"] == name]


def pod(service: str) -> dict[str, Any]:
    """The pod that runs a service of docker-compose.yml."""
    (resource,) = found(*PODS[service])
    return resource["spec"]["template"]["spec"]  # type: ignore[no-any-return]


def container(service: str) -> dict[str, Any]:
    (only,) = pod(service)["containers"]
    return only  # type: ignore[no-any-return]


def environment(service: str) -> dict[str, str]:
    """All variables of the service's container."""
    overlay = PODS[service][0]
    given: dict[str, str] = {}
    for source in container(service)["envFrom"]:
        (named,) = found(overlay, "ConfigMap", source["configMapRef"]["name"])
        given |= named["data"]
    return given | {each["name"]: each["value"] for each in container(service).get("env", [])}


@pytest.mark.parametrize("service", PODS)
def test_a_pod_runs_what_the_service_runs(service: str) -> None:
    compose = SERVICES[service]
    assert container(service)["command"] == compose["command"]
    given, wanted = environment(service), compose["environment"]
    assert set(given) - MORE == set(wanted)
    assert set(given) & MORE <= {f"ATMC_{name.upper()}" for name in Settings.model_fields}
    # Addresses are each installation's own.
    own = {name for name in wanted if re.search("_(URL|ENDPOINT|PROXIES)$", name)}
    assert {k: v for k, v in given.items() if k in set(wanted) - own} == {
        k: re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", v) for k, v in wanted.items() if k not in own
    }


@pytest.mark.parametrize("service", PODS)
def test_a_pod_has_the_service_s_secrets_and_only_by_reference(service: str) -> None:
    (secrets,) = [v for v in pod(service)["volumes"] if v["name"] == "secrets"]
    files = {
        (source["secret"]["name"].removeprefix("atmc-"), source["secret"]["items"][0]["path"])
        for source in secrets["projected"]["sources"]
    }
    assert files == {(s["source"], s["target"]) for s in SERVICES[service]["secrets"]}
    mounts = {m["name"]: m["mountPath"] for m in container(service)["volumeMounts"]}
    assert mounts["secrets"] == environment(service)["ATMC_SECRETS_DIR"]
    assert mounts["home"] == environment(service)["ATMC_HOME"]
    shown = " ".join(environment(service).values())
    assert not re.search(r"://[^/ ]*:[^/ ]*@", shown)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_secret_stands_in_the_manifests(overlay: str) -> None:
    assert found(overlay, "Secret") == []


@pytest.mark.parametrize("service", PODS)
def test_an_image_is_built_from_the_same_file_and_pinned(service: str) -> None:
    image, tag = container(service)["image"].rsplit(":", 1)
    part = SERVICES[service]["build"]["dockerfile"].split("/")[1].split(".")[0]
    assert re.fullmatch(rf"registry\.example/atmc-{part}(-gpu)?", image)
    assert re.fullmatch(r"\d+\.\d+\.\d+", tag)


@pytest.mark.parametrize("service", PODS)
def test_a_pod_has_no_more_of_its_node_than_it_needs(service: str) -> None:
    part = SERVICES[service]["build"]["dockerfile"]
    (user,) = re.findall(r"^USER (\d+)$", (ROOT / part).read_text(), re.MULTILINE)
    assert (
        pod(service)["securityContext"].items()
        >= {
            "runAsNonRoot": True,
            "runAsUser": int(user),
            "seccompProfile": {"type": "RuntimeDefault"},
        }.items()
    )
    assert container(service)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    overlay = PODS[service][0]
    (account,) = found(overlay, "ServiceAccount", pod(service)["serviceAccountName"])
    assert account["automountServiceAccountToken"] is False
    assert pod(service)["automountServiceAccountToken"] is False
    assert {"cpu", "memory"} <= set(container(service)["resources"]["requests"])
    assert "memory" in container(service)["resources"]["limits"]
    # All that is written is an emptyDir's, which has a limit.
    assert all("sizeLimit" in v["emptyDir"] for v in pod(service)["volumes"] if "emptyDir" in v)


def test_a_worker_has_its_device_and_the_time_to_give_its_job_back() -> None:
    assert container("worker-gpu")["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in container("worker-cpu")["resources"]["limits"]
    for name in ("worker-cpu", "worker-gpu"):
        grace = float(SERVICES[name]["stop_grace_period"].rstrip("s"))
        assert pod(name)["terminationGracePeriodSeconds"] == grace
        # A new one must not wait for the GPU of the old one.
        (worker,) = found(*PODS[name])
        assert worker["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


def test_the_api_is_not_ready_before_its_connections_drain() -> None:
    ready = container("api")["readinessProbe"]
    assert ready["httpGet"]["path"] == "/readyz"
    assert container("api")["livenessProbe"]["httpGet"]["path"] == "/healthz"
    given = environment("api")
    drain_s, finish_s = float(given["ATMC_DRAIN_S"]), float(given["ATMC_FINISH_S"])
    # It is noticed, and idle connections, which uvicorn closes after 5 s, are gone before it ends.
    assert drain_s > max(5, ready["failureThreshold"] * ready["periodSeconds"])
    needed_s = drain_s + finish_s + traces.FLUSH_S + 5
    assert pod("api")["terminationGracePeriodSeconds"] >= needed_s
    (api,) = found("cpu", "Deployment", "api")
    assert api["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert api["spec"]["replicas"] >= 2


@pytest.mark.parametrize("service", ["keeper", "worker-cpu", "worker-gpu"])
def test_a_pod_is_asked_whether_it_is_well_as_the_service_is(service: str) -> None:
    kind, line = SERVICES[service]["healthcheck"]["test"]
    asked = container(service)["readinessProbe"]["exec"]["command"]
    assert (kind, asked) == ("CMD-SHELL", ["sh", "-c", line.replace("$$", "$")])
    # What the broker's absence fails must not end a worker.
    assert "livenessProbe" not in container(service)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_selects_pods_selects_some(overlay: str) -> None:
    pods = [
        r["spec"]["template"]["metadata"]["labels"]
        for r in built(overlay)
        if r["kind"] in ("Deployment", "Job")
    ]
    selectors = {
        f"{r['kind']} {r['metadata']['name']}": r["spec"].get("selector", {})
        for r in built(overlay)
        if r["kind"] in ("Deployment", "Service", "PodDisruptionBudget")
    }
    selectors |= {
        f"NetworkPolicy {r['metadata']['name']}": r["spec"]["podSelector"]
        for r in found(overlay, "NetworkPolicy")
    }
    for name, selector in selectors.items():
        labels = selector.get("matchLabels", {} if "matchExpressions" in selector else selector)
        assert any(labels.items() <= each.items() for each in pods), name
        for expression in selector.get("matchExpressions", []):
            values = {each.get(expression["key"]) for each in pods}
            assert set(expression["values"]) <= values, name
    disrupted = {r["metadata"]["name"] for r in found(overlay, "PodDisruptionBudget")}
    assert disrupted == {"api", f"worker-{overlay}"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nobody_reaches_anybody_unless_a_policy_says_so(overlay: str) -> None:
    policies = {r["metadata"]["name"]: r["spec"] for r in found(overlay, "NetworkPolicy")}
    nobody = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert policies.pop("nobody") == nobody
    reached = [name for name, spec in policies.items() if "Ingress" in spec["policyTypes"]]
    assert reached == ["to-the-api"]
    # Every rule names whom, and all but the webhooks' names the ports.
    for name, spec in policies.items():
        for rule in [*spec.get("ingress", []), *spec.get("egress", [])]:
            assert rule.get("from") or rule.get("to"), name
            assert rule.get("ports") or name == "webhooks"
    wide = [n for n, s in policies.items() if "ipBlock" in yaml.safe_dump(s)]
    assert wide == ["webhooks"]
    (block,) = policies["webhooks"]["egress"][0]["to"]
    assert "169.254.0.0/16" in block["ipBlock"]["except"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_scaler_scales_a_deployment_that_there_is(overlay: str) -> None:
    (scaled,) = found(overlay, "ScaledObject")
    (target,) = found(overlay, "Deployment", scaled["spec"]["scaleTargetRef"]["name"])
    # Else each `kubectl apply` would undo what the scaler did.
    assert "replicas" not in target["spec"]
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["type"] == "postgresql"
    (authentication,) = found(
        overlay, "TriggerAuthentication", trigger["authenticationRef"]["name"]
    )
    (reference,) = authentication["spec"]["secretTargetRef"]
    assert reference["parameter"] == "connection"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_scaler_s_query_counts_what_waits_and_what_is_at_work(
    overlay: str,
    bench: Bench,  # noqa: F811
) -> None:
    (scaled,) = found(overlay, "ScaledObject")
    query = text(scaled["spec"]["triggers"][0]["metadata"]["query"])

    def workers() -> int:
        with bench.database.read() as session:
            return int(session.execute(query).scalar_one())

    assert workers() == 0
    bench.add_job({"method": "atmc"})
    bench.add_job({"method": "atmc"}, device="cpu")
    bench.add_job({"method": "atmc"}, device="gpu", gpus=1)
    # One that no worker of these pods may run.
    bench.add_job({"method": "atmc"}, device="gpu", gpus=2)
    assert workers() == 2
    offer = Offer(gpus=1 if overlay == "gpu" else 0)
    with bench.database.write() as session:
        assert leases.claim(session, "worker", lease_s=60, offer=offer) is not None
    assert workers() == 2
    for each in range(2):
        with bench.database.write() as session:
            leases.claim(session, f"worker-{each}", lease_s=60, offer=offer)
    assert workers() == 2


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_resource_is_held_to_its_schema(overlay: str) -> None:
    resources = built(overlay)
    assert len(resources) >= 17
    for resource in resources:
        assert [check(resource, version) for version in VERSIONS] == [None] * len(VERSIONS)


@pytest.mark.parametrize(
    ("kind", "name", "path", "value"),
    [
        ("Deployment", "api", "spec replica", 2),
        ("Deployment", "api", "spec replicas", "two"),
        ("Deployment", "api", "spec template spec containers 0 livenessProb", {}),
        ("ScaledObject", "worker-cpu", "spec scaleTarget", {}),
        ("ScaledObject", "worker-cpu", "spec maxReplicaCount", "8"),
        ("ScaledObject", "worker-cpu", "spec minReplicaCount", 9),
        ("ScaledObject", "worker-cpu", "spec triggers 0 metadata targetQueryValue", 1),
        ("ScaledObject", "worker-cpu", "spec triggers 0 metadata query", ""),
        (
            "ScaledObject",
            "worker-cpu",
            "spec advanced horizontalPodAutoscalerConfig behavior scaleDown policies 0 type",
            None,
        ),
        ("TriggerAuthentication", "queue", "spec secretTargetRef 0 parameter", "conection"),
    ],
)
def test_a_mistake_is_found(kind: str, name: str, path: str, value: object) -> None:
    (resource,) = found("cpu", kind, name)
    broken = copy.deepcopy(resource)
    at: Any = broken
    *steps, last = path.split()
    for step in steps:
        at = at[int(step) if isinstance(at, list) else step]
    at[last] = value
    assert check(broken, VERSIONS[-1]) is not None


def test_the_runbook_makes_every_secret_that_is_asked_for() -> None:
    runbook = (ROOT / "docs/operations.md").read_text()
    names = {
        source["secret"]["name"]
        for service in PODS
        for volume in pod(service)["volumes"]
        for source in volume.get("projected", {}).get("sources", [])
    } | {"atmc-queue"}
    (chapter,) = re.findall(r"^## Kubernetes$(.*?)^## ", runbook, re.MULTILINE | re.DOTALL)
    listed = set(re.findall(r"for name in ([a-z ]+); do", chapter)[0].split())
    assert {f"atmc-{name}" for name in listed} | {"atmc-queue"} == names
    assert "create secret generic atmc-queue" in chapter
    labels = set(
        re.findall(r"atmc\.(?:servers|callers|collector)", yaml.safe_dump_all(built("cpu")))
    )
    assert all(f"{label}=true" in chapter for label in labels)
    assert FOLDER.is_dir()
