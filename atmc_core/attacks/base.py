"""The interface of all attacks, and how attacks are combined."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

#: A function from images ``[N, C, H, W]`` in [0, 1] to logits ``[N, classes]``.
Model = Callable[[Tensor], Tensor]


class Attack(ABC):
    """Looks for perturbed images that the model misclassifies."""

    @abstractmethod
    def run(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Perturb each image within the attack's ball and within [0, 1].

        Args:
            model: the attacked model, differentiable in its input; gradients of its weights are
                never computed.
            images: float ``[N, C, H, W]`` in [0, 1].
            labels: the true classes, int64 ``[N]``.
            generator: draws everything that is random; on the images' device.

        Returns:
            The perturbed images, float ``[N, C, H, W]`` in [0, 1]; some may not fool the model.
        """

    def repeat(self, times: int) -> "InTurn":
        """The same attack from up to ``times`` random starts; see ``InTurn``.

        Raises:
            ValueError: if ``times`` is below 1.
        """
        if times < 1:
            raise ValueError(f"times is {times}: it must be at least 1")
        return InTurn((self,) * times)


@dataclass(frozen=True)
class InTurn(Attack):
    """Attacks that run one after the other, each on the images that do not fool the model yet.

    Attributes:
        attacks: the attacks in running order.

    Raises:
        ValueError: if there are none.
    """

    attacks: tuple[Attack, ...]

    def __post_init__(self) -> None:
        if not self.attacks:
            raise ValueError("there are no attacks to run in turn")

    def run(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        first, *others = self.attacks
        result = first.run(model, images, labels, generator=generator)
        for attack in others:
            with torch.no_grad():
                standing = (model(result).argmax(1) == labels).nonzero()[:, 0]
            if not len(standing):
                break
            result[standing] = attack.run(
                model, images[standing], labels[standing], generator=generator
            )
        return result


class Found:
    """The adversarial images that a search has found so far.

    Attributes:
        points: for each image its adversarial example if one was found, else the image itself,
            ``[N, C, H, W]`` in [0, 1].
        fooled: whether one was found, bool ``[N]``.
    """

    def __init__(self, images: Tensor) -> None:
        self.points = images.clone()
        self.fooled = torch.zeros(len(images), dtype=torch.bool, device=images.device)

    def record(self, numbers: Tensor, points: Tensor) -> None:
        """Note adversarial points.

        Args:
            numbers: the row numbers of the images, int64 ``[M]``.
            points: their adversarial examples, ``[M, C, H, W]``.
        """
        self.points[numbers] = points
        self.fooled[numbers] = True


class SearchAttack(Attack):
    """An attack that stops attacking an image as soon as the model misclassifies it.

    ``run`` returns an image unchanged if the model misclassifies it anyway, or if nothing was
    found. It raises the errors of ``require_attackable``.
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
        """Search around images that the model classifies correctly.

        Args:
            model: as in ``run``.
            images: as in ``run``; the model classifies all of them correctly.
            labels: as in ``run``.
            logits: the model's outputs on ``images``, ``[N, classes]``, which the caller has
                computed already.
            generator: as in ``run``.
        """


def require_attackable(logits: Tensor) -> None:
    """Check that a model can be attacked, by its outputs on the unperturbed images.

    Args:
        logits: the outputs, ``[N, classes]``.

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
    """Check that an attack's settings are positive.

    Raises:
        ValueError: if one is not above 0; the message names the first such setting.
    """
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} is {value}: it must be above 0")
