"""Builds docker/kubernetes/ and holds it to the schemas of Kubernetes: `make lint` runs this."""

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from tests.launcher import keda

FOLDER = Path(__file__).parents[2] / "docker/kubernetes"
OVERLAYS = ("cpu", "gpu")
VERSIONS = ("1.32.0", "1.37.0")
"""The oldest and the newest version of Kubernetes that the manifests are held to."""

Resource = dict[str, Any]


@cache
def built(overlay: str) -> tuple[Resource, ...]:
    """Everything that `kubectl apply -k` would apply."""
    kubectl = Path(sys.executable).with_name("kubectl")
    made = subprocess.run(
        [kubectl, "kustomize", FOLDER / overlay], capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise ValueError(made.stderr)
    return tuple(yaml.safe_load_all(made.stdout))


def check(resource: Resource, version: str) -> str | None:
    """What is wrong with a resource by a version's schema: unknown fields are, too.

    One of KEDA's is held to what KEDA takes, and what KEDA makes of it to the schema.
    """
    if resource["apiVersion"] == keda.API_VERSION:
        wrong = keda.check(resource)
        if wrong or resource["kind"] != "ScaledObject":
            return wrong
        resource = keda.autoscaler(resource)
    try:
        kubernetes_validate.validate(resource, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{'.'.join(map(str, error.path))}: {error.message}"
    return None


def main() -> int:
    """Print what is wrong; 1 if anything is."""
    wrong = []
    for overlay in OVERLAYS:
        for resource in built(overlay):
            name = f"{overlay}: {resource['kind']} {resource['metadata']['name']}"
            said = {version: check(resource, version) for version in VERSIONS}
            wrong += [f"{name} ({version}): {what}" for version, what in said.items() if what]
    print(*wrong, sep="\n", end="\n" if wrong else "")
    print(f"held to Kubernetes {', '.join(VERSIONS)} and to KEDA's fields")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
