"""The defaults that the spec and the solver share, each written once.

This module does not import pydantic, so the solver can use it without.
"""

from atmc_spec.names import Backward, DensitySchedule, Importance

BACKWARD: Backward = "smooth"
LEARNING_RATE = 0.1
ADAM_RATE = 0.002
MOMENTUM = 0.9
WEIGHT_DECAY = 1e-4
MAX_GRAD_NORM = 3.0
RHO = 0.1
DUAL_INTERVAL = 10
DENSITY_SCHEDULE: DensitySchedule = "cubic"
SHRINK_FRACTION = 0.3
IMPORTANCE: Importance = "lamp"
RANK_FRACTION = 0.01
CLEAN_WEIGHT = 0.5
TRADES_BETA = 6.0
EMA_DECAY = 0.99
TEACHER_WEIGHT = 1.0


def training_step_size(epsilon: float, steps: int) -> float:
    """The step size of the attack in training: all steps together are twice the ball's radius.

    The paper's 1.25 epsilon / steps finds weaker perturbations at any number of steps up to 40
    (docs/method.md).

    Args:
        epsilon: the ball's radius, for images in [0, 1].
        steps: the number of the attack's gradient steps.
    """
    return 2 * epsilon / steps
