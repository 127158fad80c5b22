"""Counts the passes of images through a model: the work that an attack takes."""

import torch
from torch import Tensor

from atmc_core.attacks.base import Model


class CountingModel:
    """A model that counts the images in its forward and backward passes.

    Attributes:
        forward_images: how many images the model was run on.
        backward_images: for how many images a gradient was computed.
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
