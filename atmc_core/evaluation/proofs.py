"""What an evaluation proves, and by which bounds."""

from collections.abc import Iterable
from dataclasses import dataclass

from atmc_core.certification import Certifier, NotProvable
from atmc_core.errors import InvalidInput
from atmc_core.evaluation.attacks import ReportAttack
from atmc_core.networks.classifier import Classifier
from atmc_spec import Evaluation, Threat
from atmc_spec.names import Certify

# Interval bounds take about so many forward passes.
_INTERVAL_PASSES = 6.0


@dataclass(frozen=True)
class ProofPlan:
    """How an evaluation proves images.

    Attributes:
        certifier: what proves them; None if nothing is proven.
        method: which bounds it tries.
        passes: about the largest number of passes through the model that the proof of one image
            takes.
        reason: why nothing is proven; empty if something is, or if nothing was asked for.
    """

    certifier: Certifier | None = None
    method: Certify = "none"
    passes: float = 0.0
    reason: str = ""


def plan_proofs(
    classifier: Classifier,
    shape: tuple[int, ...],
    threat: Threat,
    evaluation: Evaluation,
    attacks: Iterable[ReportAttack],
) -> ProofPlan:
    """Decide how an evaluation proves images.

    Args:
        classifier: the classifier, in evaluation mode.
        shape: that of an image, ``(C, H, W)``.
        threat: the ball.
        evaluation: says which bounds are asked for.
        attacks: the attacks of the report. Unless it is asked for, CROWN is not tried where it
            could take longer than they.

    Raises:
        InvalidInput: ``invalid_value`` if a proof is asked for in another norm than linf.
    """
    asked = evaluation.certify
    if asked == "none" or (asked is None and evaluation.level == "quick"):
        return ProofPlan()
    if threat.norm != "linf":
        if asked is not None:
            raise InvalidInput(
                "invalid_value",
                f"proofs are of linf balls, and the threat is {threat.norm}: ask for certify none",
                "evaluation.certify",
            )
        return ProofPlan(reason=f"Proofs are of L-infinity balls, and the threat is {threat.norm}.")
    try:
        certifier = Certifier(classifier, shape)
    except NotProvable as refused:
        return ProofPlan(reason=f"Not provable for this network: {refused}.")
    passes = certifier.passes()
    within = passes <= sum(attack.passes for attack in attacks)
    if asked == "ibp" or (asked is None and not within):
        certifier.method, passes = "ibp", _INTERVAL_PASSES
    return ProofPlan(certifier, certifier.method, passes)
