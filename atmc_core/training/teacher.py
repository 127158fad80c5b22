"""A teacher: a compressed network learns what the robust dense one says of the clean images.

Its probabilities for a clean image stand in for the true label, in the loss and in what the attack
climbs (robust soft labels; Zi et al., "Revisiting Adversarial Robustness Distillation", ICCV 2021).
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from atmc_core.attacks.base import Model
from atmc_core.networks.classifier import Classifier, frozen_model
from atmc_core.networks.state_dict import load_tensors


@dataclass(frozen=True)
class Teacher:
    """Makes soft labels.

    Attributes:
        model: maps images to logits; nothing of it is trained.
        weight: that of its probabilities in the labels, in [0, 1]; the true label has the rest.
    """

    model: Model
    weight: float = 1.0

    @classmethod
    def copied(
        cls, classifier: Classifier, state: Mapping[str, Tensor], weight: float
    ) -> "Teacher":
        """A teacher like a classifier, which stays as it is while the classifier is trained.

        Args:
            classifier: maps images to logits.
            state: the state dict of the teacher's network.
            weight: that of the teacher.
        """
        own = copy.deepcopy(classifier)
        load_tensors(own.network, state)
        return cls(frozen_model(own.eval()), weight)

    def labels(self, images: Tensor, labels: Tensor) -> Tensor:
        """The probability of each class by which to train, ``[N, classes]``.

        Args:
            images: the clean images, float ``[N, C, H, W]`` in [0, 1].
            labels: the true classes, int64 ``[N]``.
        """
        with torch.no_grad():
            taught = self.model(images).float().softmax(1)
        return F.one_hot(labels, taught.shape[1]).to(taught.dtype).lerp(taught, self.weight)
