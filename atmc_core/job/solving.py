"""What the solver takes, from what a spec says of training."""

from atmc_core.solver.admm import AdmmOptions
from atmc_core.solver.optimizer import OptimizerFactory, sgd
from atmc_spec import Training


def optimizer_of(training: Training) -> OptimizerFactory:
    """The optimiser of every stage."""
    return sgd(training.learning_rate, training.momentum, training.weight_decay)


def admm_options(training: Training) -> AdmmOptions:
    """How the constraints come to hold."""
    return AdmmOptions(
        rho=training.rho,
        dual_interval=training.dual_interval,
        density_schedule=training.density_schedule,
        shrink_fraction=training.shrink_fraction,
    )
