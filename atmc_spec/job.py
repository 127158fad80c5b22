"""The spec of a whole job: its parts, and the rules between them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field, ValidationInfo, field_validator

from atmc_spec.acceptance import Accept
from atmc_spec.base import Schema, SpecModel, broken
from atmc_spec.errors import InvalidInput
from atmc_spec.evaluation import Evaluation
from atmc_spec.target import Target
from atmc_spec.threat import Threat
from atmc_spec.training import Training
from atmc_spec.values import Whole


@dataclass(frozen=True)
class Idle:
    """A rule: some training options have no effect while the target has certain values.

    Attributes:
        options: the fields of ``training`` that then have to keep their defaults.
        field: the field of ``target`` that decides.
        values: the values of that field for which the options have no effect.
        why: the end of the sentence "a target of FIELD VALUE ...", for the refusal.
    """

    options: tuple[str, ...]
    field: str
    values: tuple[int | str, ...]
    why: str


class JobSpec(SpecModel):
    """The spec of one job.

    Each method derives a class that names the fields it does not use: from this class if it trains
    nothing, and otherwise from ``CompressionSpec``.
    """

    #: Whether the method can start from the compressed network of a denser job.
    starts_from_denser: ClassVar[bool] = False

    method: Annotated[str, Field(description="the recipe")]
    threat: Threat
    target: Target | None = None
    training: Training = Training()
    evaluation: Annotated[Evaluation, Field(description="the report's attacks")] = Evaluation()
    accept: Annotated[Accept, Field(description="thresholds for the report's verdict")] = Accept()
    seed: Annotated[Whole, Field(ge=0, le=2**31 - 1, description="of every random choice")] = 0

    def check_start(self) -> None:
        """Check that a job of this spec can start from the compressed network of a denser one.

        Raises:
            InvalidInput: ``unsuitable_start`` if the method or the structure cannot.
        """
        if not self.starts_from_denser:
            raise InvalidInput(
                "unsuitable_start",
                f"{self.method} chooses no entries of a denser network's: leave start_from out",
                "start_from",
            )
        if self.target is not None and self.target.structure == "channel":
            raise InvalidInput(
                "unsuitable_start",
                "a file of structure channel does not say which channels of the upload it has: "
                "leave start_from out, or ask for structure element",
                "start_from",
            )


class CompressionSpec(JobSpec):
    """The spec of a job that trains a network under the constraints of a target."""

    idle: ClassVar[tuple[Idle, ...]] = (
        Idle(("rho", "dual_interval"), "bits", (16, 32), "has no codebooks"),
        Idle(("importance",), "structure", ("channel",), "chooses no single entries"),
    )

    target: Target

    @field_validator("training")
    @classmethod
    def _has_effect(cls, training: Training, info: ValidationInfo) -> Training:
        target = info.data.get("target")
        for rule in cls.idle:
            value = getattr(target, rule.field, None)
            for name in rule.options if value in rule.values else ():
                if getattr(training, name) != training.default(name):
                    sentence = f"a target of {rule.field} {value} {rule.why}: leave {name} out"
                    raise broken(sentence, field=name)
        return training

    @classmethod
    def rules(cls) -> Schema:
        """Options without effect must keep their defaults."""
        return super().rules() | {"allOf": [cls._idle_schema(rule) for rule in cls.idle]}

    @classmethod
    def _idle_schema(cls, rule: Idle) -> Schema:
        given = _object({rule.field: {"enum": list(rule.values)}}, required=True)
        defaults = {name: {"const": Training.default(name)} for name in rule.options}
        return {
            "if": _object({"target": given}, required=True),
            "then": _object({"training": _object(defaults)}),
        }


def _object(properties: Mapping[str, Any], *, required: bool = False) -> Schema:
    return {"properties": dict(properties)} | ({"required": list(properties)} if required else {})
