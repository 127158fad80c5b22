"""What KEDA (2.x, keda.sh/v1alpha1) takes of the kinds that docker/kubernetes/ has.

Its own schemas can be had from its repository alone. These have the fields that we use and their
neighbours, by the definitions there; an unknown field is an error.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

API_VERSION = "keda.sh/v1alpha1"

_Count = Annotated[int, Field(ge=0, strict=True)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Target(_Part):
    name: str
    kind: str = "Deployment"
    apiVersion: str = "apps/v1"
    envSourceContainerName: str | None = None


class _AuthenticationRef(_Part):
    name: str
    kind: Literal["TriggerAuthentication", "ClusterTriggerAuthentication"] = "TriggerAuthentication"


class _QueryMetadata(_Part):
    """Of the scaler for PostgreSQL; how it connects stands in the authentication."""

    # KEDA reads numbers out of texts here.
    query: Annotated[str, Field(min_length=1)]
    targetQueryValue: Annotated[str, Field(pattern=r"^\d+(\.\d+)?$")]
    activationTargetQueryValue: Annotated[str, Field(pattern=r"^\d+(\.\d+)?$")] = "0"


class _Trigger(_Part):
    type: Literal["postgresql"]
    name: str | None = None
    metadata: _QueryMetadata
    authenticationRef: _AuthenticationRef
    metricType: Literal["AverageValue", "Value"] = "AverageValue"
    useCachedMetrics: bool = False


class _Autoscaler(_Part):
    name: str | None = None
    behavior: dict[str, Any] = {}
    """Kubernetes' own; see `autoscaler`."""


class _Advanced(_Part):
    horizontalPodAutoscalerConfig: _Autoscaler = _Autoscaler()
    restoreToOriginalReplicaCount: bool = False


class ScaledObject(_Part):
    """The `spec` of one."""

    scaleTargetRef: _Target
    pollingInterval: _Count = 30
    cooldownPeriod: _Count = 300
    initialCooldownPeriod: _Count = 0
    idleReplicaCount: _Count | None = None
    minReplicaCount: _Count = 0
    maxReplicaCount: _Count = 100
    advanced: _Advanced = _Advanced()
    triggers: Annotated[list[_Trigger], Field(min_length=1)]

    @model_validator(mode="after")
    def _has_room(self) -> "ScaledObject":
        if self.minReplicaCount > self.maxReplicaCount:
            raise ValueError("minReplicaCount is above maxReplicaCount")
        return self


class _SecretTarget(_Part):
    parameter: Literal["connection", "host", "userName", "password", "dbName"]
    name: str
    key: str


class TriggerAuthentication(_Part):
    """The `spec` of one."""

    secretTargetRef: Annotated[list[_SecretTarget], Field(min_length=1)]


_KINDS: dict[str, type[_Part]] = {
    "ScaledObject": ScaledObject,
    "TriggerAuthentication": TriggerAuthentication,
}


def check(resource: dict[str, Any]) -> str | None:
    """What is wrong with a resource of KEDA's, in words."""
    if set(resource) != {"apiVersion", "kind", "metadata", "spec"}:
        return f"it has {sorted(resource)}"
    kind = _KINDS.get(resource["kind"])
    if kind is None:
        return f"no {resource['kind']} is known here"
    try:
        kind.model_validate(resource["spec"])
    except ValidationError as error:
        first = error.errors()[0]
        return f"spec.{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return None


def autoscaler(resource: dict[str, Any]) -> dict[str, Any]:
    """The HorizontalPodAutoscaler that KEDA makes of a ScaledObject, which Kubernetes must take."""
    spec = ScaledObject.model_validate(resource["spec"])
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": f"keda-hpa-{resource['metadata']['name']}"},
        "spec": {
            "scaleTargetRef": spec.scaleTargetRef.model_dump(exclude={"envSourceContainerName"}),
            "minReplicas": max(1, spec.minReplicaCount),
            "maxReplicas": spec.maxReplicaCount,
            "behavior": spec.advanced.horizontalPodAutoscalerConfig.behavior,
        },
    }
