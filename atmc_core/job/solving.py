"""What the solver takes, from what a spec says of training."""

from atmc_core.compressor import Compressor
from atmc_core.factors.factors import NamedFactors
from atmc_core.job.inputs import Inputs
from atmc_core.solver.optimizer import OptimizerFactory, sgd
from atmc_core.solver.support import Structure
from atmc_spec import Training


def optimizer_of(training: Training) -> OptimizerFactory:
    """The optimiser of every stage."""
    return sgd(training.learning_rate, training.momentum, training.weight_decay)


def compressor(
    inputs: Inputs, factors: NamedFactors, structure: Structure, *, k: int, bits: int, steps: int
) -> Compressor:
    """The compressor of a stage.

    Args:
        factors: where U, V and C start.
        steps: before the end game; 0 begins with it.
    """
    training = inputs.spec.training
    return Compressor(
        inputs.classifier.network,
        k=k,
        bits=bits,
        steps=steps,
        optimizer=optimizer_of(training),
        structure=structure,
        factors=factors,
        rho=training.rho,
        dual_interval=training.dual_interval,
        density_schedule=training.density_schedule,
        shrink_fraction=training.shrink_fraction,
    )
