"""The perturbations that a model must withstand."""

import re
from typing import Annotated

from pydantic import Field, field_validator

from atmc_spec.base import SpecModel, broken
from atmc_spec.defaults import BACKWARD, training_step_size
from atmc_spec.names import Backward, Norm
from atmc_spec.values import SMALLEST, Number, Whole

# The largest radius, since images are in [0, 1].
_LARGEST = 1
_FRACTION = r"^[0-9]+(\.[0-9]+)?/[0-9]+(\.[0-9]+)?$"


class Threat(SpecModel):
    """The perturbations that the model must withstand, and the PGD that it is trained with."""

    norm: Annotated[Norm, Field(description="the norm of the ball")]
    epsilon: Annotated[
        Number,
        Field(
            ge=SMALLEST,
            le=_LARGEST,
            description='its radius, for images in [0, 1]: a number, or a fraction such as "8/255"',
            # The bounds apply to numbers only, the pattern to strings only.
            json_schema_extra={"type": ["number", "string"], "pattern": _FRACTION},
        ),
    ]
    steps: Annotated[Whole, Field(ge=1, le=1000, description="PGD steps in training")] = 7
    step_size: Annotated[
        Number | None,
        Field(ge=SMALLEST, le=1, description="of those steps; by default 2 epsilon / steps"),
    ] = None

    backward: Annotated[
        Backward,
        Field(
            description="the gradients that those steps climb: smooth lets a maximum, as in max "
            "pooling, share its gradient among all values, so that the network cannot learn to "
            "hide from the attack; plain takes the network's own"
        ),
    ] = BACKWARD

    @field_validator("epsilon", mode="before")
    @classmethod
    def _read_fraction(cls, value: object) -> object:
        """Replace a fraction by its quotient."""
        if isinstance(value, str) and re.fullmatch(_FRACTION, value):
            numerator, denominator = (float(part) for part in value.split("/"))
            return numerator / denominator if denominator else value
        if isinstance(value, (int, float)) and value > _LARGEST:
            raise broken(
                f'{value!r} is above {_LARGEST}: expected a number, or a fraction such as "8/255"; '
                f'images are in [0, 1], so for {value} grey levels write "{value}/255"'
            )
        return value

    @property
    def training_step_size(self) -> float:
        """The step size of the attack in training: the one asked for, or the default."""
        if self.step_size is not None:
            return self.step_size
        return training_step_size(self.epsilon, self.steps)
