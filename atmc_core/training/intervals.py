"""Training for proof: the loss is that of the worst logits that interval bounds allow.

Gowal et al., "On the Effectiveness of Interval Bound Propagation for Training Verifiably Robust
Models" (2018). There is no attack in it.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atmc_core.certification.bounds import intervals, worst_logits
from atmc_core.certification.program import Program, Trace
from atmc_core.data import Split
from atmc_core.networks.classifier import Classifier
from atmc_core.training.step import Step

# The radius grows between these shares of a stage.
_FIRST, _FULL = 0.05, 0.5
# Training's radius, as a multiple of the threat's: bounds at the threat's are tighter then.
RADIUS = 1.07
# The weight of the loss on clean images at the end.
CLEAN_WEIGHT = 0.25


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

    def growing(self) -> "IntervalSchedule":
        """The same with a radius that grows, for a network that is not used to the last one."""
        return replace(self, first=_FIRST, full=_FULL)

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

    Raises:
        NotProvable: if the network has an operation without a bound.
    """

    def __init__(
        self, classifier: Classifier, schedule: IntervalSchedule, shape: tuple[int, ...]
    ) -> None:
        super().__init__(classifier, None)
        self.schedule = schedule
        self.trace = Trace(classifier.eval(), shape)
        self.trace.program()
        self.progress = 0.0

    def at(self, progress: float) -> None:
        self.progress = progress

    def gradients_from(self, start: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        share = self.schedule.share(self.progress)
        with _batch_statistics(self.classifier) as statistics:
            loss = F.cross_entropy(self.classifier.train()(images), labels)
        if share > 0:
            program = self.trace.program(statistics)
            worst = _worst(program, images, labels, share * self.schedule.epsilon)
            weight = share * (1 - self.schedule.clean_weight)
            loss = loss.lerp(F.cross_entropy(worst, labels), weight)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()


@contextmanager
def _batch_statistics(classifier: Classifier) -> Iterator[dict[int, Tensor]]:
    """Collect what batch norms normalise by in the training pass inside the context.

    Bounds are to see the same normalisation as the clean images: the running statistics follow
    the weights too slowly, and have no gradient (Shi et al., "Fast Certified Robust Training with
    Short Warmup", 2021).

    Yields:
        The means and variances of the batch, differentiable, by the addresses of the running ones
        (as ``Trace.program`` takes them); of a norm that is called twice, those of the last call.
    """
    found: dict[int, Tensor] = {}

    def note(norm: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(norm.running_mean, Tensor)
        assert isinstance(norm.running_var, Tensor)
        axes = [axis for axis in range(inputs[0].ndim) if axis != 1]
        variance, mean = torch.var_mean(inputs[0], axes, correction=0)
        found[norm.running_mean.data_ptr()] = mean
        found[norm.running_var.data_ptr()] = variance

    norms = [
        module
        for module in classifier.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
    ]
    hooks = [norm.register_forward_hook(note) for norm in norms]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _worst(program: Program, images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    box = (images - epsilon).clamp_min(0), (images + epsilon).clamp_max(1)
    return worst_logits(program, intervals(program, box), labels)


@torch.no_grad()
def proven_share(
    classifier: Classifier,
    weights: Mapping[str, Tensor],
    split: Split,
    epsilon: float,
    batch_size: int,
) -> float:
    """The share that interval bounds prove, in float32; it chooses between epochs.

    Args:
        weights: tensors that stand in for the classifier's own, by name in its network.
        split: the images.
        epsilon: the radius in linf, in pixel values.
        batch_size: images in a batch.
    """
    own = copy.deepcopy(classifier).eval()
    own.network.load_state_dict(weights, strict=False)
    program = Trace(own, split.images.shape[1:]).program()
    hits = [
        (_worst(program, images, labels, epsilon).argmax(1) == labels).sum()
        for images, labels in split.batches(batch_size)
    ]
    return int(torch.stack(hits).sum()) / len(split)
