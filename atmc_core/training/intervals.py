"""Training for proof: the loss is that of the worst logits that interval bounds allow.

Gowal et al., "On the Effectiveness of Interval Bound Propagation for Training Verifiably Robust
Models" (2018). There is no attack in it.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from atmc_core.certification.bounds import intervals, worst_logits
from atmc_core.certification.program import Trace
from atmc_core.networks.classifier import Classifier
from atmc_core.training.step import Step


@dataclass(frozen=True)
class IntervalSchedule:
    """How radius and weight of the worst logits grow over a stage.

    Attributes:
        epsilon: the last radius, in linf, in pixel values.
        clean_weight: the last weight of the loss on clean images.
        first: the share of the stage with a radius of zero.
        full: the share of the stage after which the radius is the last one.
    """

    epsilon: float
    clean_weight: float
    first: float = 0.0
    full: float = 0.0

    def share(self, progress: float) -> float:
        """How much of the last radius there is after a share of the stage."""
        if progress >= self.full:
            return 1.0
        return max(0.0, (progress - self.first) / (self.full - self.first))


class IntervalStep(Step):
    """A training step on the worst logits.

    Args:
        classifier: the classifier that is trained.
        schedule: radius and weights.
        shape: that of an image, ``(C, H, W)``.

    Attributes:
        progress: the share of the stage that has passed, 0 to 1; whoever trains sets it.
    """

    def __init__(
        self, classifier: Classifier, schedule: IntervalSchedule, shape: tuple[int, ...]
    ) -> None:
        super().__init__(classifier, None)
        self.schedule = schedule
        self.trace = Trace(classifier.eval(), shape)
        self.progress = 0.0

    def gradients_from(self, start: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        share = self.schedule.share(self.progress)
        loss = F.cross_entropy(self.classifier.train()(images), labels)
        if share > 0:
            radius = share * self.schedule.epsilon
            program = self.trace.program()
            box = (images - radius).clamp_min(0), (images + radius).clamp_max(1)
            worst = worst_logits(program, intervals(program, box), labels)
            weight = share * (1 - self.schedule.clean_weight)
            loss = loss.lerp(F.cross_entropy(worst, labels), weight)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()
