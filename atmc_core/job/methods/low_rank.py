"""Adversarial training, and low rank by truncated singular value decompositions."""

from atmc_core.artifact.budget import Budget
from atmc_core.factors import splitting
from atmc_core.factors.factors import NamedFactors
from atmc_core.job.method import CompressionMethod
from atmc_core.job.stages import FactorsFor, FixedStage
from atmc_spec import JobSpec
from atmc_spec.methods import AlrSpec


class LowRank(CompressionMethod):
    """Keeps the largest singular values whose vectors together have at most k entries."""

    def start(self, weights: splitting.ViewedWeights, spec: JobSpec) -> FactorsFor:
        return lambda k: splitting.low_rank(weights, k)

    def least(self, budget: Budget) -> NamedFactors:
        """Factors with one singular value in each weight."""
        views = {name: factors.view for name, factors in budget.blank.factors.items()}
        return splitting.rank_one(views)


alr = LowRank(
    "alr",
    "Adversarial training, low rank by one threshold on all singular values, fine-tuning",
    AlrSpec,
    FixedStage,
)
