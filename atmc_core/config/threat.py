"""What the model must withstand."""

from dataclasses import dataclass
from typing import Annotated

from atmc_core.config.names import Norm
from atmc_core.schema import Fraction, Interval


@dataclass(frozen=True)
class Threat:
    """The perturbations that the model must withstand, and the PGD that it is trained with."""

    norm: Annotated[Norm, "the norm of the ball"]
    epsilon: Annotated[
        float,
        Interval(gt=0, le=1),
        Fraction('images are in [0, 1], so for {value} grey levels write "{value}/255"'),
        'its radius, for images in [0, 1]: a number, or a fraction such as "8/255"',
    ]
    steps: Annotated[int, Interval(ge=1, le=1000), "PGD steps in training"] = 7
    step_size: Annotated[
        float | None, Interval(gt=0, le=1), "of those steps; by default 2 epsilon / steps"
    ] = None

    @property
    def training_step_size(self) -> float:
        """As asked for; by default all steps together reach twice across the ball's radius.

        The paper's 1.25 epsilon / steps finds weaker perturbations at any number of steps up to 40
        (docs/method.md).
        """
        return self.step_size if self.step_size is not None else 2 * self.epsilon / self.steps
