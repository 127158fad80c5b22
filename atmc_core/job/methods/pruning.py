"""Pruning of the weights themselves: after clean or adversarial training, or throughout it."""

from atmc_core.attacks import PGD
from atmc_core.factors import splitting
from atmc_core.job.method import CompressionMethod
from atmc_core.job.stages import FactorsFor, FixedStage, MovingStage
from atmc_spec import JobSpec, Threat
from atmc_spec.methods import Al0Spec, ApSpec, NapSpec


class Pruning(CompressionMethod):
    """Keeps k entries of W, which is not factorised."""

    def start(self, weights: splitting.ViewedWeights, spec: JobSpec) -> FactorsFor:
        factors = splitting.plain(weights)
        return lambda k: factors


class CleanPruning(Pruning):
    """Prunes likewise, but trains on clean images alone."""

    def attack(self, threat: Threat) -> PGD | None:
        return None


nap = CleanPruning(
    "nap",
    "Non-adversarial pruning: clean training, magnitude pruning to k, clean fine-tuning",
    NapSpec,
    FixedStage,
)
ap = Pruning(
    "ap",
    "Adversarial training, magnitude pruning to k, adversarial fine-tuning of the survivors",
    ApSpec,
    FixedStage,
)
al0 = Pruning(
    "al0",
    "Adversarial training with l0 projection at every step: the support may move",
    Al0Spec,
    MovingStage,
)
