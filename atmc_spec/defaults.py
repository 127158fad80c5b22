"""Defaults that the solver has without a spec, too: each stands here alone. No pydantic."""

from atmc_spec.names import DensitySchedule, Importance

LEARNING_RATE = 0.1
MOMENTUM = 0.9
WEIGHT_DECAY = 1e-4
MAX_GRAD_NORM = 3.0
RHO = 0.1
DUAL_INTERVAL = 10
DENSITY_SCHEDULE: DensitySchedule = "cubic"
SHRINK_FRACTION = 0.3
IMPORTANCE: Importance = "lamp"
RANK_FRACTION = 0.01


def training_step_size(epsilon: float, steps: int) -> float:
    """How long the steps of training's attack are: together twice across the ball's radius.

    The paper's 1.25 epsilon / steps finds weaker perturbations at any number of steps up to 40
    (docs/method.md).
    """
    return 2 * epsilon / steps
