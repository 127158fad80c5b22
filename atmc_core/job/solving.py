"""Makes the optimiser and the compressor that a spec asks for."""

from atmc_core.compressor import Compressor
from atmc_core.factors.factors import NamedFactors
from atmc_core.job.inputs import Inputs
from atmc_core.solver.optimizer import OptimizerFactory, adam, sgd
from atmc_core.solver.support import Structure
from atmc_spec import Training
from atmc_spec.names import FLOAT_BITS, SmallTensorBits


def optimizer_of(training: Training) -> OptimizerFactory:
    """A factory of the optimiser that every stage uses."""
    make = {"sgd": sgd, "adam": adam}[training.optimizer_name]
    return make(training.peak_rate, training.momentum, training.weight_decay)


def compressor(
    inputs: Inputs,
    factors: NamedFactors,
    structure: Structure,
    *,
    k: int,
    bits: int,
    steps: int,
    small_tensor_bits: SmallTensorBits = FLOAT_BITS,
) -> Compressor:
    """The compressor of a stage, on the job's network.

    Args:
        factors: the U, V and C to start from; the network's weights are set to what they compose.
        structure: keeps or drops entries or channels.
        k: the number of non-zeros allowed.
        bits: the bits of a non-zero.
        steps: the optimiser steps before the end game; with 0 it begins at once.
        small_tensor_bits: what biases, norms and codebooks are rounded to in the end game.
    """
    training = inputs.spec.training
    return Compressor(
        inputs.classifier.network,
        k=k,
        bits=bits,
        steps=steps,
        small_tensor_bits=small_tensor_bits,
        optimizer=optimizer_of(training),
        structure=structure,
        factors=factors,
        rho=training.rho,
        dual_interval=training.dual_interval,
        density_schedule=training.density_schedule,
        shrink_fraction=training.shrink_fraction,
    )
