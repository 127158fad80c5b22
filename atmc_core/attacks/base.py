"""What every attack is, and how attacks combine."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

#: Images ``[N, C, H, W]`` in [0, 1] to logits ``[N, classes]``.
Model = Callable[[Tensor], Tensor]


class Attack(ABC):
    """Finds, for each image, a perturbed one that the model may get wrong."""

    @abstractmethod
    def run(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Perturbed images of the same shape, within the attack's ball and within [0, 1].

        Args:
            model: differentiable in its input; its weights' gradients are never computed if they do
                not require any.
            images: ``[N, C, H, W]`` in [0, 1].
            labels: the true classes, ``[N]``.
            generator: of the random start, on the images' device.
        """

    def repeat(self, times: int) -> "Repeated":
        """The same attack from several random starts; per image the first that fools counts."""
        return Repeated(self, times)


@dataclass(frozen=True)
class Repeated(Attack):
    """Restarts an attack on the images that still stand.

    Raises:
        ValueError: if ``times`` is below 1.
    """

    attack: Attack
    times: int

    def __post_init__(self) -> None:
        if self.times < 1:
            raise ValueError(f"times is {self.times}: it must be at least 1")

    def run(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        result = self.attack.run(model, images, labels, generator=generator)
        for _ in range(self.times - 1):
            with torch.no_grad():
                standing = (model(result).argmax(1) == labels).nonzero()[:, 0]
            if not len(standing):
                break
            result[standing] = self.attack.run(
                model, images[standing], labels[standing], generator=generator
            )
        return result
