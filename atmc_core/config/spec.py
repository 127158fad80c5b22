"""A whole job: the parts, and what of them each method has a use for."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from atmc_core.config.evaluation import Accept, Evaluation
from atmc_core.config.names import Method
from atmc_core.config.target import Target
from atmc_core.config.threat import Threat
from atmc_core.config.training import Training
from atmc_core.errors import InvalidInput
from atmc_core.schema import Interval, json_schema

#: The methods that can drop whole channels.
CHANNELS: tuple[Method, ...] = ("nap", "ap", "al0", "atmc")
#: Training options of codebooks alone, so of 1 to 8 bits.
OF_CODEBOOKS = ("rho", "dual_interval")
_OF_MOVING_SUPPORTS = (*OF_CODEBOOKS, "density_schedule", "shrink_fraction", "rank_fraction")
#: Training options that a method would ignore.
UNUSED: dict[Method, tuple[str, ...]] = {
    "nap": ("loss", "clean_weight", *_OF_MOVING_SUPPORTS),
    "da": ("compression_epochs", "finish_epochs", "importance", *_OF_MOVING_SUPPORTS),
    "ap": _OF_MOVING_SUPPORTS,
    "alr": ("importance", *_OF_MOVING_SUPPORTS),
    "al0": ("rank_fraction",),
}


@dataclass(frozen=True)
class JobSpec:
    """One job: a method, a target, a threat, and how to train and evaluate.

    ``evaluate`` alone takes no target, and nothing that is about training.
    """

    method: Annotated[Method, "the recipe"]
    threat: Threat
    target: Target | None = None
    training: Training = field(default_factory=Training)
    evaluation: Annotated[Evaluation, "the report's attacks"] = field(default_factory=Evaluation)
    accept: Annotated[Accept, "thresholds for the report's verdict"] = field(default_factory=Accept)
    seed: Annotated[int, Interval(ge=0, le=2**31 - 1), "of every random choice"] = 0

    def __post_init__(self) -> None:
        if self.method != "evaluate":
            if self.target is None:
                raise InvalidInput("missing_field", "target is required", "target")
            self._check_method()
            return
        needless = {
            "target": self.target is not None,
            "training": self.training != Training(),
            "threat.steps": self.threat.steps != Threat.steps,
            "threat.step_size": self.threat.step_size is not None,
            "accept.clean_accuracy_drop": self.accept.clean_accuracy_drop is not None,
            "accept.file_ratio": self.accept.file_ratio is not None,
        }
        for param, given in needless.items():
            if given:
                message = f"method evaluate neither trains nor compresses: leave {param} out"
                raise InvalidInput("invalid_value", message, param)

    def _check_method(self) -> None:
        """Refuse what this method would ignore."""
        if self.target and self.target.structure == "channel" and self.method not in CHANNELS:
            message = f"method {self.method} knows no channels: leave structure out"
            raise InvalidInput("invalid_value", message, "target.structure")
        for name in UNUSED.get(self.method, ()):
            self._refuse_changed(name, f"method {self.method} has no use for it")
        if self.target and self.target.structure == "channel":
            self._refuse_changed("importance", "it is of single entries, not of channels")
        if self.target and self.target.bits > 8:
            for name in OF_CODEBOOKS:
                self._refuse_changed(
                    name, f"without codebooks ({self.target.bits} bits) it is idle"
                )

    def _refuse_changed(self, name: str, why: str) -> None:
        if getattr(self.training, name) != getattr(Training, name):
            raise InvalidInput("invalid_value", f"{why}: leave {name} out", f"training.{name}")


def _unchanged(name: str) -> dict[str, Any]:
    return {"const": getattr(Training, name)}


def spec_schema(method: Method) -> dict[str, Any]:
    """The JSON Schema of the job specs of one method."""
    schema = json_schema(JobSpec)
    properties = schema["properties"]
    properties["method"] |= {"enum": [method]}
    if method != "evaluate":
        if method not in CHANNELS:
            properties["target"]["properties"]["structure"]["enum"] = ["element"]
        for name in UNUSED.get(method, ()):
            properties["training"]["properties"][name] |= _unchanged(name)
        idle = {"properties": {name: _unchanged(name) for name in OF_CODEBOOKS}}
        bits = {"properties": {"bits": {"enum": [16, 32]}}}
        without_codebooks = {
            "if": {"properties": {"target": bits}},
            "then": {"properties": {"training": idle}},
        }
        structure = {"properties": {"structure": {"const": "channel"}}, "required": ["structure"]}
        by_channels = {
            "if": {"properties": {"target": structure}},
            "then": {
                "properties": {"training": {"properties": {"importance": _unchanged("importance")}}}
            },
        }
        required = [*schema["required"], "target"]
        return schema | {"required": required, "allOf": [without_codebooks, by_channels]}
    for name in ("target", "training"):
        del properties[name]
    for name in ("steps", "step_size"):
        del properties["threat"]["properties"][name]
    for name in ("clean_accuracy_drop", "file_ratio"):
        del properties["accept"]["properties"][name]
    return schema
