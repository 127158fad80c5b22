"""The paper's systems, each a choice among the same parts.

Gui et al., "Model Compression with Adversarial Robustness: A Unified Optimization Framework",
NeurIPS 2019. How a method runs is in ``recipe``.
"""

from dataclasses import dataclass
from typing import Literal

from atmc_core.artifact.budget import Budget
from atmc_core.errors import InvalidInput
from atmc_core.factors.splitting import rank_one
from atmc_core.solver.support import Channels


@dataclass(frozen=True)
class System:
    """One system.

    Attributes:
        adversarial: train on adversarial images too, else on clean ones alone.
        factors: how the weights are held. ``plain``: W itself; ``low_rank``: a truncated singular
            value decomposition; ``factorised``: U, V and C.
        support: ``none``: no compression; ``fixed``: chosen once by size; ``moving``: chosen again
            after every step.
        compresses: whether there is any training and a result at all.
    """

    description: str
    adversarial: bool
    factors: Literal["plain", "low_rank", "factorised"]
    support: Literal["none", "fixed", "moving"]
    compresses: bool = True


METHODS: dict[str, System] = {
    "nap": System(
        "Non-adversarial pruning: clean training, magnitude pruning to k, clean fine-tuning",
        adversarial=False,
        factors="plain",
        support="fixed",
    ),
    "da": System(
        "Dense adversarial training, no compression: density 1 and 32 bits",
        adversarial=True,
        factors="plain",
        support="none",
    ),
    "ap": System(
        "Adversarial training, magnitude pruning to k, adversarial fine-tuning of the survivors",
        adversarial=True,
        factors="plain",
        support="fixed",
    ),
    "al0": System(
        "Adversarial training with l0 projection at every step: the support may move",
        adversarial=True,
        factors="plain",
        support="moving",
    ),
    "alr": System(
        "Adversarial training, low rank by one threshold on all singular values, fine-tuning",
        adversarial=True,
        factors="low_rank",
        support="fixed",
    ),
    "atmc": System(
        "Adversarially trained model compression: pruning, factorisation and nonuniform "
        "quantisation in one adversarial training, solved by ADMM",
        adversarial=True,
        factors="factorised",
        support="moving",
    ),
    "evaluate": System(
        "No compression: the report of the uploaded model alone",
        adversarial=False,
        factors="plain",
        support="none",
        compresses=False,
    ),
}


def check_target(method: str, budget: Budget) -> None:
    """Check that a method can meet a target.

    Raises:
        InvalidInput: if ``k`` is out of range, nothing fits, the channels are not known, or da is
            asked to compress.
    """
    views = {name: factors.view for name, factors in budget.blank.factors.items()}
    low_rank = METHODS[method].factors == "low_rank"
    budget.check(rank_one(views) if low_rank else None)
    k, structure = budget.target.budget(budget.most), budget.structure
    if k is not None and isinstance(structure, Channels) and k < structure.least():
        raise InvalidInput(
            "k_out_of_range",
            f"{k} non-zeros asked for; with one channel a layer the network has "
            f"{structure.least()}: ask for as many, or for structure element",
            "target",
        )
    if METHODS[method].support == "none" and (budget.target.bits != 32 or not budget.holds_all()):
        raise InvalidInput(
            "invalid_value",
            f"{method} does not compress: ask for density 1 and 32 bits, or another method",
            "target",
        )
