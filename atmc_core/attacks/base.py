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
            model: differentiable in its input; its weights' gradients are never computed.
            images: ``[N, C, H, W]`` in [0, 1].
            labels: the true classes, ``[N]``.
            generator: of all that is drawn at random, on the images' device.
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


class Found:
    """What a search has found so far.

    Attributes:
        points: the adversarial image where one was found, else the image itself, ``[N, C, H, W]``.
        fooled: where one was found, bool ``[N]``.
    """

    def __init__(self, images: Tensor) -> None:
        self.points = images.clone()
        self.fooled = torch.zeros(len(images), dtype=torch.bool, device=images.device)

    def record(self, numbers: Tensor, points: Tensor) -> None:
        """Note adversarial ``points`` of the images with these numbers."""
        self.points[numbers] = points
        self.fooled[numbers] = True


class SearchAttack(Attack):
    """An attack that is done with an image as soon as the model gets it wrong.

    ``run`` returns an image unchanged where the model errs already, and where nothing was found;
    it raises what ``require_attackable`` does.
    """

    def run(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        with torch.no_grad():
            logits = model(images)
        require_attackable(logits)
        standing = (logits.argmax(1) == labels).nonzero()[:, 0]
        result = images.clone()
        if len(standing):
            found = self.search(
                model, images[standing], labels[standing], logits[standing], generator=generator
            )
            result[standing] = found.points
        return result

    @abstractmethod
    def search(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        logits: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Found:
        """Search around images that the model gets right.

        Args:
            logits: the model's on ``images``, ``[N, classes]``, so that they need not be computed
                again.
        """


def require_attackable(logits: Tensor) -> None:
    """Check the outputs on the images themselves, ``[N, classes]``, before an attack is run.

    Raises:
        ValueError: if there are no images, or fewer than two classes.
        FloatingPointError: if an output is not finite.
    """
    if not len(logits):
        raise ValueError("there are no images to attack")
    if logits.ndim != 2 or logits.shape[1] < 2:
        classes = logits.shape[1] if logits.ndim == 2 else 0
        raise ValueError(f"the model has {classes} classes: it needs at least 2")
    finite = torch.isfinite(logits).all(1)
    if not finite.all():
        count = int((~finite).sum())
        raise FloatingPointError(
            f"the model returns NaN or infinite outputs for {count} of {len(logits)} images: "
            "no attack can tell what fools it"
        )


def require_positive(**values: float) -> None:
    """Check an attack's numbers.

    Raises:
        ValueError: naming the first that is not above 0.
    """
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} is {value}: it must be above 0")
