"""A teacher: the compressed network learns the outputs of the dense one on the clean images.

Its outputs on adversarial images are drawn to what the robust dense network says of the clean ones:
adversarially robust distillation, Goldblum et al. (AAAI 2020), without a temperature.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from atmc_core.attacks.base import Model
from atmc_core.networks.classifier import Classifier, frozen_model
from atmc_core.networks.state_dict import load_tensors
from atmc_core.training.step import StepLoss
from atmc_core.training.trades import divergence


@dataclass(frozen=True)
class DistilledLoss(StepLoss):
    """Another loss, and the divergence of the adversarial outputs from a teacher's clean ones.

    In clean training it is the divergence of the clean outputs.

    Attributes:
        loss: the other loss.
        teacher: maps images to logits; nothing of it is trained.
        weight: that of the divergence, in [0, 1]; the other loss has the rest.
    """

    loss: StepLoss
    teacher: Model
    weight: float

    @property
    def on_clean(self) -> bool:  # type: ignore[override]
        return self.loss.on_clean

    def __call__(self, logits: Tensor, labels: Tensor, images: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self.teacher(images).log_softmax(1)
        attacked = logits[-len(labels) :]
        own = self.loss(logits, labels, images)
        return own.lerp(divergence(attacked, wanted).mean(), self.weight)


def as_teacher(classifier: Classifier, state: Mapping[str, Tensor]) -> Model:
    """A copy of a classifier with other tensors, which stays as it is while the first is trained.

    Args:
        classifier: maps images to logits.
        state: the tensors of its network's state dict.
    """
    own = copy.deepcopy(classifier)
    load_tensors(own.network, state)
    return frozen_model(own.eval())
