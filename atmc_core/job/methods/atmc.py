"""ATMC itself: pruning, factorisation and quantisation in one adversarial training."""

from atmc_core.factors import splitting
from atmc_core.job.method import CompressionMethod
from atmc_core.job.stages import FactorsFor, MovingStage
from atmc_spec import JobSpec
from atmc_spec.methods import AtmcSpec


class Atmc(CompressionMethod):
    """Trains U, V and C, and keeps k entries of the three together."""

    def start(self, weights: splitting.ViewedWeights, spec: JobSpec) -> FactorsFor:
        factors = splitting.interpolative(weights, spec.training.rank_fraction)
        return lambda k: factors


atmc = Atmc(
    "atmc",
    "Adversarially trained model compression: pruning, factorisation and nonuniform "
    "quantisation in one adversarial training, solved by ADMM",
    AtmcSpec,
    MovingStage,
)
