"""How much work an attack was: passes through the model, image by image."""

import torch
from torch import Tensor

from atmc_core.attacks.base import Model


class CountingModel:
    """Calls a model and counts the images that pass it, forwards and backwards.

    Attributes:
        forward_images: images that went forwards.
        backward_images: images that a gradient came back for.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.forward_images = 0
        self.backward_images = 0

    def __call__(self, images: Tensor) -> Tensor:
        self.forward_images += len(images)
        logits = self.model(images)
        if torch.is_grad_enabled() and logits.requires_grad:
            logits.register_hook(self._count_backward)  # type: ignore[no-untyped-call]
        return logits

    def _count_backward(self, gradient: Tensor) -> None:
        self.backward_images += len(gradient)
